"""How does a user sign in at the OpenID Provider? With Authlib as the application that she uses: the code
flow with PKCE, as a browser would go through it."""

import secrets
from urllib.parse import parse_qs, urljoin, urlsplit

import requests
from authlib.integrations.requests_client import OAuth2Session

CALLBACK = "http://127.0.0.1/callback"


def sign_in(provider: str, client_id: str) -> dict[str, str]:
    """Alice's tokens for this application: `id_token` and `access_token`."""
    application = OAuth2Session(
        client_id,
        redirect_uri=CALLBACK,
        scope="openid",
        code_challenge_method="S256",
        token_endpoint_auth_method="none",
    )
    application.trust_env = False
    verifier = secrets.token_urlsafe(48)
    url, _ = application.create_authorization_url(
        f"{provider}/auth", code_verifier=verifier, nonce=secrets.token_urlsafe(16)
    )
    answered = _follow(url)
    assert "code" in parse_qs(urlsplit(answered).query), answered
    return dict(
        application.fetch_token(f"{provider}/token", authorization_response=answered, code_verifier=verifier)
    )


def _follow(url: str) -> str:
    """Where the browser ends: at the application."""
    with requests.Session() as browser:
        browser.trust_env = False
        for _ in range(8):
            if url.startswith(CALLBACK):
                return url
            answer = browser.get(url, allow_redirects=False, timeout=10)
            assert answer.status_code in (302, 303), (answer.status_code, answer.text)
            url = urljoin(url, answer.headers["Location"])
    raise AssertionError(f"the sign-in does not end: {url}")
