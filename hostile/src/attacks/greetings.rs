//! Greetings of lanes of the same host that lie: of another place, of processes that are not the one
//! that speaks, and of memory that is no ring.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvx_core::proto::LaneKey;
use kvx_core::transport::TransportKind;
use kvx_shm::testing::ForgedRing;
use rustix::fs::{MemfdFlags, SealFlags, fchown, fcntl_add_seals, ftruncate, memfd_create};
use rustix::process::{Pid, Signal, Uid, getppid, kill_process};
use zerocopy::IntoBytes;

use crate::Attack;
use crate::connection::{Claim, Control, Gone, Greeting, Lane, Result, Rings, Stream};
use crate::connection::{put_answer, say};
use crate::outcome::Answer;
use crate::scene::Scene;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "false-greetings",
        what: "greetings of another version, kernel or namespace, and words out of turn",
        must: "each lane is refused, and the control connection goes on",
        run: false_greetings,
    },
    Attack {
        name: "foreign-processes",
        what: "greetings in the name of the first process, a parent, a stopped child, one that has \
               ended, and the victim, with every descriptor that they may have",
        must: "each lane is refused, and none of them is read",
        run: foreign_processes,
    },
    Attack {
        name: "false-rings",
        what: "rings that are no shared memory, not sealed, of another size or user, without the \
               answer or with another, and answers that are elsewhere",
        must: "each lane is refused",
        run: false_rings,
    },
    Attack {
        name: "greetings-cut-off",
        what: "sockets that close at each step, and many that say nothing more",
        must: "each holds its lane alone, and nothing once that has ended",
        run: greetings_cut_off,
    },
];

const ENDED: &[Answer] = &[Answer::LaneEnded];

/// A lane whose greeting is due.
struct Greeted {
    stream: Stream,
    claim: Claim,
    key: LaneKey,
    own: ForgedRing,
    theirs: Greeting,
}

impl Greeted {
    /// One that the victim has greeted, with the right answer in its ring.
    fn by(scene: &Scene<'_>, control: &mut Control) -> Result<Self> {
        let claim = Claim { transport: TransportKind::Shm.code(), ..Claim::next(control)? };
        let (mut stream, _, key) = Lane::claim_for_key(scene.target, control, &claim)?;
        let theirs = Greeting::heard(&mut stream)?;
        let own = ForgedRing::new(Rings::PAGE + Rings::RING)?;
        put_answer(&own, &key, &theirs);
        Ok(Self { stream, claim, key, own, theirs })
    }

    /// Puts the right answer into other shared memory, too, if it is long enough.
    fn answer_in(&self, memfd: &OwnedFd) -> rustix::io::Result<()> {
        let answer = words(&self.own).map(u64::to_ne_bytes).concat();
        rustix::io::pwrite(memfd, &answer, 8 * Rings::ANSWER as u64).map(drop)
    }

    /// Greets so, and says to have answered: what comes of it.
    fn end(mut self, control: &mut Control, greeting: &Greeting) -> Result<Answer> {
        // It may have hung up before all is said.
        let _ = self.stream.send(greeting.as_bytes());
        let _ = self.stream.send(&[say::READY]);
        Lane::over(self.stream, None, self.claim.lane).end(control)
    }
}

/// Strikes once with a greeting that is right but for what `change` does.
fn strike(
    scene: &mut Scene<'_>,
    what: &str,
    change: impl FnOnce(&mut Greeting, &mut Greeted),
) -> Result<()> {
    let mut control = enter(scene)?;
    let mut lane = Greeted::by(scene, &mut control)?;
    let mut greeting = Greeting::own(&lane.own)?;
    change(&mut greeting, &mut lane);
    scene.pace.blow();
    let answer = lane.end(&mut control, &greeting)?;
    scene.judge(what, answer, ENDED);
    control.leave();
    Ok(())
}

/// A control connection of somebody who offers lanes of the same host.
fn enter(scene: &mut Scene<'_>) -> Result<Control> {
    if scene.target.transport != TransportKind::Shm {
        return Err(Gone::Lacks("lanes over shm"));
    }
    scene.enter()
}

fn false_greetings(scene: &mut Scene<'_>) -> Result<()> {
    strike(scene, "another version", |greeting, _| greeting.magic[6] ^= 3)?;
    strike(scene, "another kernel", |greeting, _| greeting.boot[9] ^= 1)?;
    for (what, at) in [("another device", 0), ("another namespace", 1)] {
        strike(scene, what, |greeting, _| greeting.pids[at] += 1)?;
    }
    // A peer that says nothing of its own, but what the victim has said.
    strike(scene, "the victim's own greeting", |greeting, lane| *greeting = lane.theirs)?;
    strike(scene, "noise", |greeting, _| greeting.as_mut_bytes().fill(0x5a))?;
    let words: [&[u8]; 9] = [
        &[say::FINE],
        &[say::BELL],
        &[say::GONE],
        &[0],
        &[0xff],
        &[say::READY, say::READY],
        &[say::READY, say::BELL],
        &[say::READY, say::FINE, say::FINE],
        &[say::READY, say::FINE, say::REFUSED],
    ];
    for said in words {
        let mut control = enter(scene)?;
        let mut lane = Greeted::by(scene, &mut control)?;
        scene.pace.blow();
        lane.stream.send(Greeting::own(&lane.own)?.as_bytes())?;
        let _ = lane.stream.send(said);
        let answer = Lane::over(lane.stream, None, lane.claim.lane).end(&mut control)?;
        scene.judge(&format!("{said:?} out of turn"), answer, ENDED);
        control.leave();
    }
    Ok(())
}

fn foreign_processes(scene: &mut Scene<'_>) -> Result<()> {
    for pid in [0, -1, i32::MIN, i32::MAX] {
        strike(scene, "no process", |greeting, _| greeting.pid = pid.into())?;
    }
    let (stopped, ended) = (stopped_child()?, ended_child()?);
    let pid = |child: &Child| child.id().cast_signed();
    let parent = getppid().map_or(1, Pid::as_raw_pid);
    let named = [("the first process", 1), ("the parent", parent)];
    let children = [("a stopped process", pid(&stopped.0)), ("one that has ended", pid(&ended.0))];
    for (what, pid) in named.into_iter().chain(children) {
        for ring in [-1, 0, 1, 3, 1000, i32::MAX] {
            strike(scene, what, |greeting, _| {
                (greeting.pid, greeting.ring) = (pid.into(), ring.into());
            })?;
        }
    }
    // Rings of the victim's: one of them is the one that it has just made.
    for ring in 0..64 {
        strike(scene, "the victim itself", |greeting, lane| {
            (greeting.pid, greeting.ring) = (lane.theirs.pid, ring.into());
        })?;
    }
    Ok(())
}

/// A process that ends with this.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn stopped_child() -> Result<Ends> {
    // Waits for input that never comes.
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let child = Ends(child);
    let stopped = kill_process(Pid::from_child(&child.0), Signal::STOP);
    stopped.map_err(io::Error::from)?;
    Ok(child)
}

/// Killed, and not waited for.
fn ended_child() -> Result<Ends> {
    let mut child = stopped_child()?;
    child.0.kill()?;
    std::thread::sleep(Duration::from_millis(20));
    Ok(child)
}

fn false_rings(scene: &mut Scene<'_>) -> Result<()> {
    let ring = |memfd: &OwnedFd| memfd.as_raw_fd().into();
    let other = OwnedFd::from(File::open("/dev/null")?);
    strike(scene, "a device for a ring", |greeting, _| greeting.ring = ring(&other))?;
    let executable = OwnedFd::from(File::open("/proc/self/exe")?);
    strike(scene, "a file for a ring", |greeting, _| greeting.ring = ring(&executable))?;
    for number in [-1, i32::MIN, i32::MAX] {
        strike(scene, "no descriptor", |greeting, _| greeting.ring = number.into())?;
    }
    let whole = 8 * (Rings::PAGE + Rings::RING) as u64;
    let some = SealFlags::SHRINK | SealFlags::GROW;
    let all = some | SealFlags::FUTURE_WRITE;
    for (what, len, seals) in [
        ("a ring that is not sealed", whole, SealFlags::empty()),
        ("a ring that can be cut", whole, SealFlags::GROW | SealFlags::FUTURE_WRITE),
        ("a ring that can grow", whole, SealFlags::SHRINK | SealFlags::FUTURE_WRITE),
        ("a ring that others can write", whole, some),
        ("a ring of a page", 4096, all),
        ("a ring that is too short", whole - 4096, all),
        ("a ring that is too long", whole + 4096, all),
        ("a ring of 4 GiB", 1 << 32, all),
    ] {
        let memfd = memfd(len)?;
        strike(scene, what, |greeting, lane| {
            // All else is right.
            let _ = lane.answer_in(&memfd);
            let _ = fcntl_add_seals(&memfd, seals);
            greeting.ring = ring(&memfd);
        })?;
    }
    if rustix::process::geteuid().is_root() {
        let foreign = memfd(whole)?;
        fchown(&foreign, Some(Uid::from_raw(65_534)), None).map_err(io::Error::from)?;
        strike(scene, "another user's ring", |greeting, lane| {
            let _ = lane.answer_in(&foreign);
            let _ = fcntl_add_seals(&foreign, all);
            greeting.ring = ring(&foreign);
        })?;
    }
    let zeros = ForgedRing::new(Rings::PAGE + Rings::RING)?;
    strike(scene, "a ring of zeros", |greeting, _| greeting.ring = zeros.number().into())?;
    strike(scene, "an answer that is off by a bit", |_, lane| {
        lane.own.words()[Rings::ANSWER].fetch_xor(1, Ordering::SeqCst);
    })?;
    strike(scene, "the answer to another challenge", |_, lane| {
        let mut theirs = lane.theirs;
        theirs.challenge[15] ^= 1;
        put_answer(&lane.own, &lane.key, &theirs);
    })?;
    strike(scene, "the answer under another lane's key", |_, lane| {
        put_answer(&lane.own, &LaneKey::new([7; 32]), &lane.theirs);
    })?;
    let mut before = None;
    for what in ["no answer", "the answer of a lane before"] {
        strike(scene, what, |_, lane| {
            let late = before.unwrap_or_default();
            before = Some(words(&lane.own));
            put_words(&lane.own, late);
        })?;
    }
    for (what, address) in [
        ("an answer at no address", 0),
        ("an answer where nothing is", 4096),
        ("an answer at the end of memory", u64::MAX - 15),
        ("an answer beyond the end of memory", u64::MAX),
        ("an answer in the kernel", 0xffff_8880_0000_0000),
    ] {
        strike(scene, what, |greeting, _| greeting.answer_address = address.into())?;
    }
    strike(scene, "an answer elsewhere in its ring", |greeting, _| {
        greeting.answer_address += 16;
    })?;
    Ok(())
}

fn memfd(len: u64) -> Result<OwnedFd> {
    let memfd = memfd_create("hostile", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let memfd = memfd.map_err(io::Error::from)?;
    ftruncate(&memfd, len).map_err(io::Error::from)?;
    Ok(memfd)
}

/// The answer in a ring.
fn words(ring: &ForgedRing) -> [u64; 2] {
    [0, 1].map(|at| ring.words()[Rings::ANSWER + at].load(Ordering::SeqCst))
}

fn put_words(ring: &ForgedRing, answer: [u64; 2]) {
    for (place, word) in ring.words()[Rings::ANSWER..].iter().zip(answer) {
        place.store(word, Ordering::SeqCst);
    }
}

fn greetings_cut_off(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = enter(scene)?;
    let mut silent = Vec::new();
    for round in 0..48 {
        scene.pace.blow();
        let mut lane = Greeted::by(scene, &mut control)?;
        let greeting = Greeting::own(&lane.own)?;
        let bytes = [greeting.as_bytes(), &[say::READY, say::FINE]].concat();
        let cut = match round % 8 {
            0 => 0,
            1 => 1,
            2 => Greeting::LEN - 1,
            3 => Greeting::LEN,
            4 => Greeting::LEN + 1,
            5 => bytes.len(),
            _ => scene.random.below(bytes.len()),
        };
        let _ = lane.stream.send(&bytes[..cut]);
        match round % 3 {
            0 => drop(lane),
            1 => lane.stream.finish()?,
            // Held open, up to as many lanes as there may be.
            _ => silent.push(lane),
        }
    }
    let answer = control.verdict()?;
    scene.judge("beside greetings that are cut off", answer, &[Answer::Ignored]);
    drop(silent);
    let answer = control.verdict()?;
    scene.judge("after greetings that are cut off", answer, &[Answer::Ignored]);
    control.leave();
    Ok(())
}
