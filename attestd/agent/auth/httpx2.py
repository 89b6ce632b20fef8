"""How does an attested agent call with `httpx2`?

`httpx2.Client(auth=AgentAuth(session))`, or `AsyncClient`, whose loop goes on while the machine attests.
"""

import httpx2

from attestd.agent.auth.flows import Flows


class AgentAuth(Flows, httpx2.Auth):
    """Attaches token and proof to each request; a request that the resource wants proven otherwise is sent
    once more."""
