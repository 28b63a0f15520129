//! Handshakes of control connections: replayed, forged, malformed, and in somebody else's name.

use kvx_core::id::{EngineId, Incarnation};
use kvx_core::proto::{Auth, AuthKey, Dialer};
use kvx_core::wire::handshake::{Confirm, HandshakeMessage, Hello, MAX_HANDSHAKE};
use kvx_core::wire::metadata::MetadataSecret;

use crate::Attack;
use crate::connection::{Control, Gone, Me, Result, Stream};
use crate::outcome::Answer;
use crate::scene::Scene;
use crate::{clock, random};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "replayed-handshake",
        what: "a recorded handshake, said again byte by byte",
        must: "it is rejected as WrongKey, and the recorded connection goes on",
        run: replayed_handshake,
    },
    Attack {
        name: "wrong-proofs",
        what: "handshakes without the auth key, without a proof, or by another method",
        must: "each is rejected",
        run: wrong_proofs,
    },
    Attack {
        name: "bad-hellos",
        what: "Hellos of other versions, to other engines, of absurd length, bent in every byte",
        must: "each is rejected or hung up on",
        run: bad_hellos,
    },
    Attack {
        name: "the-victims-id",
        what: "a Hello under the victim's own engine id",
        must: "it is rejected as SameEngine",
        run: the_victims_id,
    },
    Attack {
        name: "anothers-id",
        what: "a handshake under the id of an engine that the victim is connected with, in another \
               life and in the same",
        must: "it takes that engine's place, as a holder of the auth key may, and gets nothing \
               that was the other's",
        run: anothers_id,
    },
];

fn replayed_handshake(scene: &mut Scene<'_>) -> Result<()> {
    let mut control = scene.enter()?;
    let recording = control.recording.clone();
    let wrong = &[Answer::Rejected("WrongKey")];
    for _ in 0..3 {
        let mut stream = Stream::connect(scene.target.address)?;
        stream.send(&recording.hello)?;
        stream.handshake()?;
        stream.send(&recording.confirm)?;
        let outcome = stream.handshake();
        scene.judge_handshake("a replayed handshake", outcome, wrong)?;
    }
    // All of it at once, without waiting for the Welcome.
    let mut stream = Stream::connect(scene.target.address)?;
    stream.send(&[&recording.hello[..], &recording.confirm[..]].concat())?;
    stream.handshake()?;
    let outcome = stream.handshake();
    scene.judge_handshake("a replay in one go", outcome, wrong)?;
    let answer = control.verdict()?;
    scene.judge("the connection that was recorded", answer, &[Answer::Ignored]);
    Ok(())
}

fn wrong_proofs(scene: &mut Scene<'_>) -> Result<()> {
    let me = Me::new()?;
    let hello = |auth: &Auth| {
        let nonce = random::unique()?;
        let (_, hello) = Dialer::new(&me.identity(), auth, None, nonce, clock::now())?;
        Ok::<_, Gone>(hello)
    };
    let right = hello(&scene.target.auth)?;
    let mac = scene.random.array();
    let time = clock::now();
    let proof = HandshakeMessage::Confirm(Confirm { time, mark: None, mac }).encode()?;
    let nothing = HandshakeMessage::Confirm(Confirm { time, mark: None, mac: [0; 32] }).encode()?;
    let wrong = Answer::Rejected("WrongKey");
    for (what, words, allowed) in [
        ("a random proof", &proof, &[wrong][..]),
        ("a proof of zeros", &nothing, &[wrong]),
        // What is no Confirm is not what was asked for.
        ("a second Hello for a proof", &right, &[Answer::Rejected("NotKvx"), wrong]),
    ] {
        let mut stream = Stream::connect(scene.target.address)?;
        stream.send(&right)?;
        stream.handshake()?;
        stream.send(words)?;
        let outcome = stream.handshake();
        scene.judge_handshake(what, outcome, allowed)?;
    }
    // With another key the dialer itself sees that the Welcome is not for it.
    let other = match scene.target.secret() {
        Some(_) => Auth::Metadata(MetadataSecret::new(scene.random.array())),
        None => Auth::SharedKey(AuthKey::new(scene.random.bytes(32))),
    };
    let mut stream = Stream::connect(scene.target.address)?;
    let nonce = random::unique()?;
    let (dialer, hello_of_other) =
        Dialer::new(&Me::new()?.identity(), &other, None, nonce, clock::now())?;
    stream.send(&hello_of_other)?;
    let (bytes, welcome) = stream.handshake()?;
    let outcome = dialer.handle_welcome(clock::now(), &bytes, welcome).map_err(Gone::from);
    scene.judge_handshake("a Welcome by another key", outcome, &[wrong])?;
    stream.send(&proof)?;
    let outcome = stream.handshake();
    scene.judge_handshake("a proof by another key", outcome, &[wrong])?;
    // No method at all.
    let mut stream = Stream::connect(scene.target.address)?;
    stream.send(&hello(&Auth::Insecure)?)?;
    let outcome = stream.handshake();
    scene.judge_handshake("no authentication", outcome, &[Answer::Rejected("Method")])?;
    Ok(())
}

fn bad_hellos(scene: &mut Scene<'_>) -> Result<()> {
    let me = Me::new()?;
    let nonce = random::unique()?;
    let identity = me.identity();
    let (_, good) = Dialer::new(&identity, &scene.target.auth, None, nonce, clock::now())?;
    let Ok(HandshakeMessage::Hello(hello)) = decode(&good) else {
        return Err(Gone::Own("an own Hello does not decode".into()));
    };
    let changed = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello.clone();
        change(&mut hello);
        HandshakeMessage::Hello(hello).encode()
    };
    let wrong_engine = EngineId(scene.random.array());
    for (what, words, reason) in [
        ("a version to come", changed(&|h| (h.version_min, h.version_max) = (99, 999))?, "Version"),
        ("another engine", changed(&|h| h.expected = Some(wrong_engine))?, "WrongEngine"),
    ] {
        let mut stream = Stream::connect(scene.target.address)?;
        stream.send(&words)?;
        let outcome = stream.handshake();
        scene.judge_handshake(what, outcome, &[Answer::Rejected(reason)])?;
    }
    // Lengths that lie, and kinds that are not for a listener.
    let hung_up = &[Answer::HungUp, Answer::Rejected("NotKvx"), Answer::Rejected("Malformed")];
    let mut words = vec![
        b"GET / HTTP/1.1\r\nHost: kvx\r\n\r\n".to_vec(),
        b"KVX\n\x01\x00\xff\xff".to_vec(),
        [b"KVX\n\x01\x00\x00\x10".to_vec(), vec![0; MAX_HANDSHAKE]].concat(),
        b"KVX\n\x01\x01\x10\x00".to_vec(),
        b"KVX\n\x00\x00\x00\x00".to_vec(),
        b"KVX\n\x08\x00\x00\x00".to_vec(),
        b"KVX\n\x01\x00\x00\x00".to_vec(),
        scene.random.bytes(4096),
    ];
    // Versions from 0 to 0.
    let mut old = good.clone();
    old[8..12].fill(0);
    words.push(old);
    for kind in [2, 3, 5, 6, 7] {
        let mut other = good.clone();
        other[4] = kind;
        words.push(other);
    }
    for words in words {
        let outcome = hello_of(scene, &words)?;
        scene.judge_handshake("what is no Hello", outcome, hung_up)?;
    }
    // Every byte bent: some are names and clocks, which anybody may have; no proof fits them.
    for index in 0..good.len() {
        let mut bent = good.clone();
        bent[index] ^= 1 << scene.random.below(8);
        let outcome = hello_of(scene, &bent)?;
        let answer = match outcome {
            Err(Gone::Rejected(_)) => Answer::Rejected("a bent Hello"),
            Err(Gone::Ended) => Answer::HungUp,
            Ok(()) => Answer::Accepted,
            Err(other) => return Err(other),
        };
        scene.pace.blow();
        scene.outcome.count(answer);
    }
    Ok(())
}

/// Says these words for a Hello, and no more.
fn hello_of(scene: &Scene<'_>, words: &[u8]) -> Result<Result<()>> {
    let mut stream = Stream::connect(scene.target.address)?;
    let outcome = stream.send(words).and_then(|()| stream.finish());
    Ok(outcome.and_then(|()| stream.handshake().map(drop)))
}

fn decode(message: &[u8]) -> std::result::Result<HandshakeMessage, kvx_core::wire::WireError> {
    use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeKind};
    HandshakeMessage::decode(HandshakeKind::Hello, &message[HANDSHAKE_PREFIX_LEN..])
}

fn the_victims_id(scene: &mut Scene<'_>) -> Result<()> {
    let engine = scene.target.engine.ok_or(Gone::Lacks("the victim's metadata"))?;
    let me = Me { engine, ..Me::new()? };
    let outcome = Control::dial(scene.target, me);
    scene.judge_handshake("the victim's own id", outcome, &[Answer::Rejected("SameEngine")])?;
    Ok(())
}

fn anothers_id(scene: &mut Scene<'_>) -> Result<()> {
    if scene.target.secret().is_some() {
        return Err(Gone::Lacks("the auth key: by metadata alone see anothers-place"));
    }
    let lacks = "an engine that the victim knows";
    let other = scene.target.other.clone().ok_or(Gone::Lacks(lacks))?;
    // Between two that dialed each other the victim keeps its own connection for a while.
    let may = &[Answer::Accepted, Answer::Rejected("Duplicate")];
    for incarnation in [other.incarnation, Incarnation(random::unique()?)] {
        let me = Me { engine: other.engine, incarnation, ..Me::new()? };
        let outcome = Control::dial(scene.target, me);
        let Some(mut control) = scene.judge_handshake("another's id", outcome, may)? else {
            continue;
        };
        // The victim may say first what it had to say to the other; then both begin anew.
        match control.resume(None) {
            Ok(()) => {}
            Err(Gone::Ended) => continue,
            Err(gone) => return Err(gone),
        }
        let answer = control.verdict()?;
        // The other engine may have taken its place back already.
        let may = &[Answer::Ignored, Answer::ControlEnded];
        scene.judge("in another's name", answer, may);
    }
    Ok(())
}
