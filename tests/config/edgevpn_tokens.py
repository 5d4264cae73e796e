"""EdgeVPN tokens as its generator writes them (fixed, so that network ids can be compared)."""

import base64

KEY = "Zq3vXk9LmT2bNc8RfY7sWd5GhJ1pAe4UiOo6CnBxMlK"

TEXT = f"""otp:
  dht:
    interval: 360
    key: {KEY}
    length: 43
  crypto:
    interval: 360
    key: {KEY[::-1]}
    length: 43
room: {KEY.lower()}
rendezvous: {KEY.upper()}
mdns: {KEY[3:] + KEY[:3]}
max_message_size: 20971520
"""


def edgevpn_token(text: str = TEXT) -> str:
    return base64.b64encode(text.encode()).decode()
