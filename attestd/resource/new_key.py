"""How does a resource get the key by which it asks the issuer about tokens?

    python -m attestd.resource.new_key tools.pem > tools.jwks

The first file stays with the resource; the second is what the issuer's `[[resource]]` names as `jwks`.
"""

import json
import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestd.resource.jwk import base64url, thumbprint


def new_key(path: Path) -> str:
    """Write a new P-256 key, readable by its owner alone; the JWK Set of its public half. FileExistsError
    where there is a file already."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    point = key.public_key().public_numbers()
    x, y = (base64url(number.to_bytes(32)) for number in (point.x, point.y))
    jwk = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "use": "sig"}
    return json.dumps({"keys": [{**jwk, "kid": thumbprint(key.public_key())}]}, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m attestd.resource.new_key FILE")
    print(new_key(Path(sys.argv[1])))
