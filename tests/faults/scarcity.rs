//! A victim that runs out of descriptors, memory or threads: what needs more is an error that says
//! so, what is there goes on, and all is well when there is enough again.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kvx_workers::random::from_env;
use kvx_workers::skip::skip;
use kvx_workers::vitals::Work;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::row::Row;
use crate::stage::{PATIENCE, Stage};

#[test]
fn without_descriptors_those_who_are_there_are_served_and_others_wait() {
    let mut stage = Stage::new("descriptors", "deadline=3000");
    limit(stage.victim.pid(), Resource::Nofile, Some(256));
    let mut other = stage.third("other", "");
    other.must("alloc name=memory len=4096");
    let blob = other.must("blob names=memory").get("blob").to_owned();
    let rounds = from_env("KVX_FAULT_ROUNDS", 16).div_ceil(16);
    let row = Row::new("no descriptor left", "EMFILE is an error; nobody spins; all goes on after")
        // The victim has one peer more, whose lanes have descriptors for ring and process, too.
        .allows(|allows| allows.descriptors = 8);
    row.play(&mut stage, |stage| {
        for _ in 0..rounds {
            let hoarded: u64 = stage.victim.must("hoard").number("descriptors");
            // One who comes waits: there is no descriptor for its connection.
            let mut newcomer = stage.third("newcomer", "deadline=30000");
            newcomer.tell(&format!("connect peer=victim address={}", stage.victim.address));
            for command in [
                "alloc name=more len=4096",
                "another name=another",
                &format!("connect peer=other address={}", other.address),
            ] {
                let failure = stage.victim.must_fail(command);
                assert!(failure.cause.contains("code:24"), "{command}: {failure:?}");
            }
            stage.victim.must(&format!("add peer=other blob={blob}"));
            let post = "post id=it op=write peer=other name=private region=0 len=4096";
            stage.victim.must(&format!("{post} deadline=200"));
            let failure = stage.victim.must_fail("wait id=it");
            assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
            stage.wait_served(2);
            expect_idle(stage);

            stage.victim.must("unhoard");
            newcomer.answer().unwrap();
            newcomer.must("notify peer=victim from=0 to=1");
            newcomer.must("shutdown");
            stage.victim.must(post);
            stage.victim.must("wait id=it");
            assert!(hoarded > 0);
        }
        rounds
    });
}

/// While nothing moves, a victim that cannot accept looks again from time to time and sleeps in
/// between; it does not try all the time.
fn expect_idle(stage: &mut Stage) {
    stage.pause_neighbour(true);
    let control = |stage: &Stage| Work::of(stage.victim.pid(), "kvx-control");
    let before = control(stage);
    let begin = Instant::now();
    loop {
        let now = control(stage);
        // One who never sleeps comes to the ticks first, however little of a core it gets.
        assert!(now.ticks - before.ticks < 20, "{now:?} after {before:?}");
        if now.sleeps - before.sleeps >= 20 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{now:?} after {before:?}");
        thread::sleep(Duration::from_millis(5));
    }
    stage.pause_neighbour(false);
}

#[test]
fn without_memory_what_is_too_large_is_an_error() {
    let cases = [
        ("no address space left", Resource::As, &["alloc name=more len=67108864", PLAN][..]),
        // Shared memory, such as the engine's buffers are, does not count.
        ("no data segment left", Resource::Data, &[PLAN][..]),
    ];
    for (fault, resource, commands) in cases {
        let mut stage = Stage::new("memory", "deadline=3000");
        let mut large = stage.third("large", "deadline=3000");
        large.must("alloc name=memory len=4096");
        large.must(&format!("connect peer=victim address={}", stage.victim.address));
        large.must("notify peer=victim from=0 to=1");
        let blob = large.must("blob names=memory").get("blob").to_owned();
        stage.victim.must(&format!("add peer=large blob={blob}"));
        // Its lanes have all the descriptors that they will ever have.
        for _ in 0..4 {
            let post = "post id=first op=write peer=large name=private region=0 len=4096";
            stage.victim.must(post);
            stage.victim.must("wait id=first");
        }
        // An allocator that takes the notification from address space set aside keeps its pages.
        let row = Row::new(fault, "what is too large is an error; peers served")
            .allows(|allows| allows.resident_kib += 16 << 10);
        row.play(&mut stage, |stage| {
            let (pid, now) = (stage.victim.pid(), stage.vitals());
            let used = if resource == Resource::As { now.mapped_kib } else { now.data_kib };
            let old = limit(pid, resource, Some((used << 10) + ROOM));
            // What a peer makes as large as it may. There may be room for it in address space that
            // is set aside, and there is none for it in a data segment as long as it is.
            let told = large.ask(LONGEST);
            if resource == Resource::Data {
                assert!(told.unwrap_err().is_one_of(&["DeliveryUnknown"]));
            }
            for command in commands {
                let failure = stage.victim.must_fail(command);
                assert!(failure.is_one_of(&["OutOfMemory"]), "{command}: {failure:?}");
            }
            stage.wait_served(2);
            limit(pid, resource, old.current);
            large.must(LONGEST);
            1 + commands.len() as u64
        });
    }
}

const LONGEST: &str = "notify-long peer=victim len=16000000";

/// What a caller makes as large as it likes.
const PLAN: &str = "prepare peer=large name=private region=0 runs=4000000";

/// A memfd is a file: beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which ends a process that does
/// not expect it.
#[test]
fn a_buffer_larger_than_files_may_be_is_an_error() {
    let mut stage = Stage::new("file-size", "");
    let row = Row::new("files limited to 1 MiB", "a larger buffer is an error; peers served");
    row.play(&mut stage, |stage| {
        let old = limit(stage.victim.pid(), Resource::Fsize, Some(1 << 20));
        let failure = stage.victim.must_fail("alloc name=more len=4194304");
        assert!(failure.is_one_of(&["OutOfMemory"]), "{failure:?}");
        stage.victim.must("alloc name=less len=1048576");
        stage.victim.must("free name=less");
        stage.wait_served(2);
        limit(stage.victim.pid(), Resource::Fsize, old.current);
        1
    });
}

#[test]
fn without_threads_another_engine_is_an_error() {
    let mut stage = Stage::new("threads", "");
    let group = match Group::new(stage.victim.pid()) {
        Ok(group) => group,
        Err(reason) => {
            return skip("scarcity::without_threads_another_engine_is_an_error", &reason);
        }
    };
    Row::new("no thread left", "EAGAIN is an error; peers served").play(&mut stage, |stage| {
        group.limit(&stage.vitals().threads.to_string());
        let failure = stage.victim.must_fail("another name=another");
        assert!(failure.cause.contains("code:11"), "{failure:?}");
        stage.wait_served(2);
        group.limit("max");
        stage.victim.must("another name=another");
        1
    });
}

/// What is left for the small things that nobody can do without: the workers' own checks too.
const ROOM: u64 = 4 << 20;

/// A control group that limits threads: RLIMIT_NPROC does not bind root.
struct Group {
    directory: PathBuf,
}

impl Group {
    /// A group with one process in it.
    fn new(member: Pid) -> Result<Self, String> {
        let version_1 = Path::new("/sys/fs/cgroup/pids");
        let root = if version_1.exists() { version_1 } else { Path::new("/sys/fs/cgroup") };
        let directory = root.join(format!("kvx-{}", std::process::id()));
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        fs::create_dir(&directory).map_err(failed)?;
        let group = Self { directory: directory.clone() };
        fs::metadata(directory.join("pids.max")).map_err(failed)?;
        let member = member.as_raw_nonzero().to_string();
        fs::write(directory.join("cgroup.procs"), member).map_err(failed)?;
        Ok(group)
    }

    fn limit(&self, threads: &str) {
        fs::write(self.directory.join("pids.max"), threads).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        let members = fs::read_to_string(self.directory.join("cgroup.procs"));
        for member in members.unwrap_or_default().lines() {
            let _ = fs::write(parent.join("cgroup.procs"), member);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Sets a limit of a process; the one before.
fn limit(pid: Pid, resource: Resource, current: Option<u64>) -> Rlimit {
    // A child's is the same.
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(pid), resource, Rlimit { current, maximum }).unwrap()
}
