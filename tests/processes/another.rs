//! Another program where a peer was: its process runs something else, or has ended and its pid is
//! another's, while all its connections are held open. What is there now is not taken for what the
//! peer has sent.

use std::process::Command;

use kvx_workers::container::Container;
use kvx_workers::content::POISON;
use kvx_workers::skip::skip;
use kvx_workers::worker::Worker;

/// Less than an owner names at once: all of it waits in the ring.
const LEN: u64 = 1 << 20;
/// What lies in the new program's memory.
const OTHERS: u8 = 0xee;

#[test]
fn what_a_process_runs_instead_is_not_read_for_what_it_has_sent() {
    let executable = || same_addresses(Command::new(std::env::current_exe().unwrap()));
    let mut scene = Scene::new("exec", executable(), executable());
    scene.owner.must("exec");
    scene.owner.must("engine name=another transports=shm");
    scene.owner.must(&format!("alloc name=source len={LEN} canary=4096"));
    scene.owner.must(&format!("fill name=source byte={OTHERS}"));
    scene.must_fail();
}

#[test]
fn another_process_of_the_same_pid_is_not_read_for_the_one_that_died() {
    let name = "another::another_process_of_the_same_pid_is_not_read_for_the_one_that_died";
    let container = match Container::new() {
        Ok(container) => container,
        Err(reason) => return skip(name, &reason),
    };
    let executable = || same_addresses(container.command());
    let mut scene = Scene::new("reuse", executable(), executable());
    let pid: u32 = scene.owner.must("pid").number("pid");
    scene.owner.kill();
    let last = "exec 3<&0; echo $(($0 - 1)) > /proc/sys/kernel/ns_last_pid; \"$@\" <&3 & wait";
    let test = std::env::current_exe().unwrap();
    let mut shell = container.command_by("sh");
    shell.args(["-c", last, &pid.to_string(), "setarch", "-R"]).arg(test);
    let mut another = Worker::start_by(shell, "another", "transports=shm");
    let number: u32 = another.must("pid").number("pid");
    if number != pid {
        return skip(name, "the kernel lets nobody choose a pid");
    }
    another.must(&format!("alloc name=source len={LEN} canary=4096"));
    another.must(&format!("fill name=source byte={OTHERS}"));
    scene.must_fail();
}

/// A READ whose answer waits in the owner's ring, for a reader that is stopped. The owner's
/// descriptors are kept open by another process.
struct Scene {
    reader: Worker,
    owner: Worker,
}

impl Scene {
    fn new(case: &str, reader: Command, owner: Command) -> Self {
        let mut reader =
            Worker::start_by(reader, &format!("reader-{case}"), "transports=shm lanes=1");
        reader.must(&format!("alloc name=sink len={LEN} rights=none canary=4096"));
        let mut owner = Worker::start_by(owner, &format!("owner-{case}"), "transports=shm");
        owner.must(&format!("alloc name=source len={LEN} canary=4096"));
        owner.must("fill name=source seed=5");
        let blob = owner.must("blob names=source");
        reader.must(&format!("add peer=owner blob={}", blob.get("blob")));
        let post = |id: &str, len: u64| {
            format!("post id={id} op=read peer=owner name=sink region=0 len={len} deadline=3000")
        };
        reader.must(&post("first", 64));
        reader.must("wait id=first");
        // The question is there when the owner goes on, and its answer when the reader does.
        owner.stop();
        reader.must(&post("it", LEN));
        reader.stop();
        owner.resume();
        owner.must("keep");
        std::thread::sleep(std::time::Duration::from_millis(200));
        Self { reader, owner }
    }

    /// The READ fails, and nothing of it lands once it has.
    fn must_fail(mut self) {
        self.reader.resume();
        let failure = self.reader.must_fail("wait id=it");
        assert_eq!(failure.operation, "Read", "{failure:?}");
        let known = ["PeerLost", "PeerRestarted", "Deadline"];
        assert!(failure.is_one_of(&known), "{failure:?}");
        self.reader.must(&format!("fill name=sink byte={POISON}"));
        let watched = self.reader.must(&format!("watch name=sink byte={POISON} ms=500"));
        assert_eq!(watched.verb, "ok", "{watched:?}");
    }
}

/// The same command, of which each run has its memory at the same addresses.
fn same_addresses(command: Command) -> Command {
    let mut fixed = Command::new("setarch");
    fixed.arg("-R").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| fixed.env(name, value));
    }
    fixed
}
