"""`python -m simulations.lab VERB …`, which is what `meshd demo VERB …` runs."""

from simulations.lab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
