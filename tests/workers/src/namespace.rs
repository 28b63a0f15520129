//! Network namespaces with nothing but loopback, in which packets can be dropped, refused and
//! links taken down. They need root, `ip`, `ss` and `nft`.

use std::process::{Command, Stdio};

use rustix::process::Pid;

/// A network namespace of the test's own; it goes with this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A namespace whose name holds `case`, with loopback up and an empty nft chain for what comes
    /// in.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(case: &str) -> Result<Self, String> {
        let name = format!("kvx-{}-{case}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        namespace.set_loopback(true)?;
        run(namespace.inside("nft").args(["add", "table", "inet", "kvx"]))?;
        let chain = "{ type filter hook input priority 0; }";
        run(namespace.inside("nft").args(["add", "chain", "inet", "kvx", "input", chain]))?;
        run(namespace.inside("ss").arg("-tnH"))?;
        Ok(namespace)
    }

    /// A command that runs the test binary in here.
    pub fn command(&self) -> Command {
        self.inside(std::env::current_exe().unwrap().to_str().unwrap())
    }

    /// Packets from and to this port meet this verdict: `drop`, `reject with tcp reset` and the
    /// like.
    pub fn filter_port(&self, port: u16, verdict: &str) {
        for field in ["sport", "dport"] {
            let rule = format!("add rule inet kvx input tcp {field} {port} {verdict}");
            run(self.inside("nft").args(rule.split(' '))).unwrap();
        }
    }

    /// Takes back every [`Self::filter_port`].
    pub fn filter_nothing(&self) {
        run(self.inside("nft").args(["flush", "chain", "inet", "kvx", "input"])).unwrap();
    }

    /// Takes the only link up or down: down, packets vanish and nobody is told.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn set_loopback(&self, up: bool) -> Result<(), String> {
        let state = if up { "up" } else { "down" };
        run(self.inside("ip").args(["link", "set", "lo", state])).map(drop)
    }

    /// The dialer's port of the connection to `port` that has carried most: a lane.
    pub fn busiest_connection(&self, port: u16) -> u16 {
        let connections = self.connections(port, None);
        let busiest = connections.iter().max_by_key(|(_, sent)| *sent);
        busiest.unwrap().0
    }

    /// The dialer's port and the bytes sent of each connection to `port`; those of one dialer only,
    /// if it is named.
    pub fn connections(&self, port: u16, dialer: Option<Pid>) -> Vec<(u16, u64)> {
        let filter = format!("dport = :{port}");
        let arguments = ["-tinpOH", "state", "established", &filter];
        let listed = run(self.inside("ss").args(arguments)).unwrap();
        let number_after = |line: &str, key: &str| {
            let rest = line.split_once(key).map_or("", |(_, rest)| rest);
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or(0)
        };
        let process = dialer.map(|pid| format!("pid={},", pid.as_raw_nonzero()));
        let of_dialer = |line: &&str| process.as_ref().is_none_or(|pid| line.contains(pid));
        listed
            .lines()
            .filter(of_dialer)
            .map(|line| {
                // Recv-Q, Send-Q, local address, peer's address.
                let local = line.split_whitespace().nth(2).unwrap();
                let port = local.rsplit(':').next().unwrap().parse().unwrap();
                (port, number_after(line, "bytes_sent:"))
            })
            .collect()
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// The command's output; or why it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let program = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}", said.trim().replace('\n', " ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
