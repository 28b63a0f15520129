//! Pid, IPC and user namespaces of a test's own: what a container is to the memory of its processes.
//! They need a kernel that lets users make namespaces, `unshare`,
//! `nsenter` and `setpriv`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Tells a worker that it runs in a container, whose end is its own.
pub(crate) const CONTAINED: &str = "KVX_TEST_CONTAINED";

/// How long the namespaces may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Namespaces that go, with all processes in them, with this value.
#[derive(Debug)]
pub struct Container {
    holder: Child,
    /// The first process in there, as it is called out here.
    first: String,
}

impl Container {
    /// New namespaces, with a /proc of their own.
    ///
    /// # Errors
    /// Why there are none.
    pub fn new() -> Result<Self, String> {
        // It ends with the thread that makes it, however that ends.
        let holder = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--user",
                "--map-root-user",
                "--pid",
                "--ipc",
                "--mount-proc",
            ])
            .args(["--fork", "--kill-child", "sleep", "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut container = Self { holder, first: String::new() };
        let begin = Instant::now();
        while !container.is_there() {
            if let Ok(Some(status)) = container.holder.try_wait() {
                let said = container.holder.stderr.take().map(std::io::read_to_string);
                let said = said.and_then(Result::ok).unwrap_or_default();
                return Err(format!("unshare: {status}: {}", said.trim().replace('\n', " ")));
            }
            if begin.elapsed() > PATIENCE {
                return Err("unshare hangs".to_owned());
            }
            thread::sleep(Duration::from_millis(5));
        }
        let output = container.inside("true").output();
        let output = output.map_err(|error| format!("nsenter: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        output.status.success().then_some(container).ok_or(format!("nsenter: {said}"))
    }

    /// A command that runs the test binary in here.
    pub fn command(&self) -> Command {
        self.command_by(std::env::current_exe().unwrap().to_str().unwrap())
    }

    /// A command that runs a program in here, which is to run the test binary.
    pub fn command_by(&self, program: &str) -> Command {
        let mut command = self.inside(program);
        command.env(CONTAINED, "1");
        command
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first, "--user", "--pid", "--ipc", "--mount", program]);
        command
    }

    /// Whether the first process has its /proc, and so everything else.
    fn is_there(&mut self) -> bool {
        let holder = self.holder.id();
        let children = fs::read_to_string(format!("/proc/{holder}/task/{holder}/children"));
        let first = children.unwrap_or_default().trim().to_owned();
        let runs = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
        self.first = first;
        runs.trim() == "sleep"
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
