"""What is one machine of the fleet, and what is left of it when the power goes?

Its disk and what its TPM keeps stay; what lay on its tmpfs does not. The agent is `attestd agent run` in a
process of its own. Linux would give a new boot id at each boot; here all machines have that of the host, so
that to the service a boot shows by the TPM's reset counter alone.
"""

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from attestd.agent.state import State
from attestd.agent.transport import Server
from scripts.fleet.starts import TRACE
from tests.serving import ATTESTD
from tpm.swtpm import SoftwareTpm
from tpm.swtpm_ca import TestCa

AGENT = "telemetry"
FORMATS = ("x509-svid", "wit-svid")
_FAILED = "; next try "
"""What an agent says of each try that failed."""
_CONFIGURATION = """
server = "{url}"
ca = "{ca}"
tpm = "{tcti}"
state = "state"
socket = "{volatile}/workload.sock"
[[workload]]
agent = "{agent}"
formats = {formats}
user = ["{user}"]
files = "{volatile}/{agent}"
"""


class Machine:
    """Off at first."""

    def __init__(self, directory: Path, volatile: Path, server: Server, maker: TestCa) -> None:
        """`directory` is its disk, `volatile` its tmpfs. `server` has a file as its authority; `maker`
        certifies the TPM."""
        self.directory, self.volatile = directory, volatile
        self._server, self._maker = server, maker
        self._tpm: SoftwareTpm | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        text = _CONFIGURATION.format(
            url=server.url,
            ca=server.ca,
            tcti=self.tcti,
            volatile=volatile,
            agent=AGENT,
            formats=json.dumps(FORMATS),
            user=os.getuid(),
        )
        self.configuration.write_text(text)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def configuration(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def tpm_socket(self) -> Path:
        """The same each time, as a device's path is. Its control channel is beside it."""
        return self.directory / "tpm"

    @property
    def tcti(self) -> str:
        return f"swtpm:path={self.tpm_socket}"

    @property
    def identity(self) -> Path:
        """Is there from when its agent has an identity until the power goes; a link to another place after
        each renewal."""
        return self.volatile / AGENT / f"{AGENT}.current"

    @property
    def device_id(self) -> str:
        membership, _ = State(self.directory / "state").enrolment()
        return membership.device_id

    def power_on(self) -> None:
        """Up to where a kernel would start: the TPM has had its TPM2_Startup(CLEAR)."""
        self.volatile.mkdir(parents=True)
        tpm = SoftwareTpm(ca=self._maker, state=self.directory / "nvram")
        tpm.__enter__()
        self._tpm = tpm
        for suffix in ("", ".ctrl"):
            link = self.tpm_socket.with_suffix(suffix)
            link.unlink(missing_ok=True)
            link.symlink_to(tpm.tcti.removeprefix("swtpm:path=") + suffix)

    def start_agent(self, *, trace: Path | None = None) -> None:
        """What systemd would do. With `trace`, the agent says there what it imports, and all else that it
        has to say."""
        command = [str(ATTESTD), "agent", "run", "--config", str(self.configuration)]
        environment = os.environ | ({} if trace is None else TRACE)
        with (trace or self.directory / "log").open("wb") as log:
            # A session of its own: Ctrl-C at a terminal is for the rehearsal, which ends it.
            self.agent = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end_agent(self) -> None:
        """As systemd would before it starts it again, but for the files, which would stay."""
        assert self.agent is not None
        self.agent.terminate()
        self.agent.wait()
        self.agent = None
        shutil.rmtree(self.volatile)
        self.volatile.mkdir()

    def cut(self) -> None:
        """The power is gone, without warning to anybody."""
        if self.agent is not None:
            self.agent.kill()
        if self._tpm is not None:
            with suppress(ProcessLookupError):
                os.kill(self._tpm.pid, signal.SIGKILL)

    def settle(self) -> None:
        """What the tmpfs held is gone, and nothing of it runs any more."""
        if self.agent is not None:
            self.agent.wait()
            self.agent = None
        if self._tpm is not None:
            self._tpm.__exit__(None, None, None)
            self._tpm = None
        shutil.rmtree(self.volatile, ignore_errors=True)

    def tries(self) -> int:
        """How many its agent needed for its identity since it was started, by its own words."""
        return 1 + self.log().count(_FAILED)

    def log(self) -> str:
        """What its agent said since it was started."""
        return (self.directory / "log").read_text(errors="replace")
