"""The joining side of port 6443: the server's CA is checked against the token before it is used."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping

from simulations.standin.log import log
from simulations.standin.tokens import Token, ca_hash
from simulations.standin.wire import Answer, Client, Unreachable

_CACERTS_LIMIT_S = 10.0


class Untrusted(Exception):
    """The other side could not be asked or is not who the token says; the text is k3s'."""


class Supervisor:
    """A server whose CA was checked, asked with the token's password."""

    def __init__(self, url: str, token: Token, ca: bytes) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(cadata=ca.decode())
        self._url = url
        self._token = token
        self._client = Client(tls)
        self.ca = ca

    @classmethod
    async def trust(cls, url: str, token: Token) -> Supervisor:
        """Fetch the CA of the server at `url` and check its hash; raises Untrusted."""
        anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anything.check_hostname = False
        anything.verify_mode = ssl.CERT_NONE  # The hash in the token is the check.
        try:
            answer = await Client(anything).request(
                "GET",
                f"{url}/cacerts",
                headers={"Connection": "close"},
                timeout_s=_CACERTS_LIMIT_S,
            )
        except Unreachable as error:
            raise Untrusted(f"failed to get CA certs: {error}") from error
        if answer.status != 200:
            raise Untrusted(f"failed to get CA certs: {refusal(answer)}")
        found = ca_hash(answer.body)
        if token.ca_hash is None:
            log(
                "warning",
                "Cluster CA certificate is not trusted by the host CA bundle, but the token does"
                " not include a CA hash. Use the full token from the server's node-token file to"
                " enable Cluster CA validation.",
            )
        elif token.ca_hash != found:
            raise Untrusted(
                "token CA hash does not match the Cluster CA certificate hash:"
                f" {token.ca_hash} != {found}"
            )
        return cls(url, token, answer.body)

    async def ask(
        self,
        path: str,
        *,
        user: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 15.0,
    ) -> Answer:
        """Ask as `server` or `node` with the token's password; raises Unreachable."""
        pair = base64.b64encode(f"{user}:{self._token.password}".encode()).decode()
        return await self._client.request(
            method,
            self._url + path,
            headers={"Authorization": f"Basic {pair}", **(headers or {})},
            timeout_s=timeout_s,
        )

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()


def refusal(answer: Answer) -> str:
    """Return the message of an answer that is not 200."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.reason
