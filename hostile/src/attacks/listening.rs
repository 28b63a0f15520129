//! A listener that the victim dials: garbage, silence, lies, and a good handshake with bad to follow.

use std::net::{SocketAddr, TcpListener};
use std::slice;
use std::time::{Duration, Instant};

use kvx_core::error::HandshakeError;
use kvx_core::id::RegionId;
use kvx_core::proto::Listener;
use kvx_core::region::{RegionKey, Rights};
use kvx_core::transport::MemoryKind;
use kvx_core::wire::handshake::{HandshakeMessage, Reject};
use kvx_core::wire::message::{MAX_LISTED_REGIONS, Message};
use kvx_core::wire::metadata::{MAX_REGIONS, RegionDescription};

use crate::Attack;
use crate::connection::{Control, Gone, Me, Recording, Result, Stream};
use crate::forge::Frame;
use crate::outcome::Answer;
use crate::scene::Scene;
use crate::target::Ask;
use crate::{clock, random};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "dialed-nonsense",
        what: "a listener that answers garbage, silence, half a Welcome, or the Hello itself",
        must: "the victim gives the address up by its deadline, and tells nothing",
        run: dialed_nonsense,
    },
    Attack {
        name: "dialed-lies",
        what: "a listener whose Welcome is under another key, bent, or the victim's own",
        must: "the victim does not confirm it",
        run: dialed_lies,
    },
    Attack {
        name: "dialed-and-mute",
        what: "a good listener that never takes a lane, or ends each at once",
        must: "the victim tries again, ever later, and others are served",
        run: dialed_and_mute,
    },
    Attack {
        name: "dialed-and-wild",
        what: "a good listener whose messages and frames are garbage",
        must: "each connection ends",
        run: dialed_and_wild,
    },
    Attack {
        name: "told-lies",
        what: "a good listener that is asked for its regions: lists without end, twice, of nothing, \
               bent, of what is not there, and none",
        must: "a list that breaks a rule ends the connection, another does no harm",
        run: told_lies,
    },
];

/// How long the victim may take to dial.
const DIALS: Duration = Duration::from_secs(10);

/// A port that the victim dials.
struct Port(TcpListener);

impl Port {
    /// Has the victim dial it.
    fn open(scene: &Scene<'_>) -> Result<Self> {
        Self::open_for(scene, Ask::Dial)
    }

    /// Has the victim dial it, for one purpose or another.
    fn open_for(scene: &Scene<'_>, ask: impl FnOnce(SocketAddr) -> Ask) -> Result<Self> {
        let any = if scene.target.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let listener = TcpListener::bind(any)?;
        listener.set_nonblocking(true)?;
        scene.ask(ask(listener.local_addr()?))?;
        Ok(Self(listener))
    }

    /// The next connection, if one comes in time.
    fn accept(&self, wait: Duration) -> Result<Option<Stream>> {
        let until = Instant::now() + wait;
        loop {
            match self.0.accept() {
                Ok((tcp, _)) => {
                    tcp.set_nonblocking(false)?;
                    return Stream::new(tcp).map(Some);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The next one, with its Hello.
    fn hello(&self) -> Result<(Stream, Vec<u8>, HandshakeMessage)> {
        let mut stream = self.accept(DIALS)?.ok_or(Gone::Silent("a dial"))?;
        let (bytes, message) = stream.handshake()?;
        Ok((stream, bytes, message))
    }

    /// Shakes hands rightly with the one who dials.
    fn welcome(&self, scene: &Scene<'_>) -> Result<Control> {
        let (mut stream, bytes, message) = self.hello()?;
        let HandshakeMessage::Hello(hello) = message else {
            return Err(Gone::Silent("a Hello"));
        };
        let me = Me::new()?;
        let (identity, auth) = (me.identity(), &scene.target.auth);
        let now = clock::now();
        let reply = Listener::answer(
            &identity,
            slice::from_ref(auth),
            &bytes,
            hello,
            random::unique()?,
            now,
        )?;
        stream.send(&reply.bytes)?;
        let (_, confirm) = stream.handshake()?;
        let established = reply.listener.handle_confirm(clock::now(), &confirm)?;
        let recording = Recording { hello: bytes, confirm: Vec::new() };
        let mut control = Control::over(stream, me, &established, recording)?;
        control.resume(None)?;
        Ok(control)
    }
}

fn dialed_nonsense(scene: &mut Scene<'_>) -> Result<()> {
    let noise = scene.random.bytes(5000);
    let web = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    let busy = HandshakeMessage::Reject(Reject { reason: HandshakeError::Busy }).encode()?;
    for words in [noise, web, busy, b"KVX\n".to_vec(), b"KVX\n\x02\x00\xf8\x0f".to_vec(), vec![]] {
        let port = Port::open(scene)?;
        let (mut stream, hello, _) = port.hello()?;
        scene.pace.blow();
        // The Hello said back at it is no Welcome either.
        let answer = match stream.send(&words).and_then(|()| stream.send(&hello)) {
            Ok(()) => silent_end(&mut stream)?,
            Err(Gone::Ended) => Answer::HungUp,
            Err(other) => return Err(other),
        };
        scene.judge("nonsense for a Welcome", answer, &[Answer::HungUp]);
    }
    Ok(())
}

/// The victim must end the connection and say nothing more on it.
fn silent_end(stream: &mut Stream) -> Result<Answer> {
    match stream.take(1, DIALS) {
        Ok(None) => Ok(Answer::Ignored),
        Ok(Some(_)) => Ok(Answer::Accepted),
        Err(Gone::Ended) => Ok(Answer::HungUp),
        Err(other) => Err(other),
    }
}

fn dialed_lies(scene: &mut Scene<'_>) -> Result<()> {
    use kvx_core::proto::{Auth, AuthKey};
    let other = Auth::SharedKey(AuthKey::new(scene.random.bytes(32)));
    for lie in 0..6 {
        let port = Port::open(scene)?;
        let (mut stream, bytes, message) = port.hello()?;
        let HandshakeMessage::Hello(hello) = message else {
            return Err(Gone::Silent("a Hello"));
        };
        let auth = if lie == 0 { &other } else { &scene.target.auth };
        let mut identity = Me::new()?.identity();
        if lie == 1 {
            identity.engine = hello.identity.engine;
        }
        let mut hello = hello;
        if lie == 1 {
            // Or the listener's own half would turn the victim down first.
            hello.identity.engine = kvx_core::id::EngineId(scene.random.array());
        }
        let nonce = random::unique()?;
        let reply =
            Listener::answer(&identity, slice::from_ref(auth), &bytes, hello, nonce, clock::now())?;
        let mut words = reply.bytes;
        if lie > 1 {
            let at = 8 + scene.random.below(words.len() - 8);
            words[at] ^= 1 << scene.random.below(8);
        }
        scene.pace.blow();
        stream.send(&words)?;
        // A length that was bent upwards is waited for, until the handshake's time is over.
        let answer = silent_end(&mut stream)?;
        scene.judge("a Welcome that lies", answer, &[Answer::HungUp]);
    }
    Ok(())
}

fn dialed_and_mute(scene: &mut Scene<'_>) -> Result<()> {
    let port = Port::open(scene)?;
    let mut control = port.welcome(scene)?;
    let begun = Instant::now();
    let (mut lanes, mut held) = (0, Vec::new());
    while begun.elapsed() < Duration::from_secs(3) && !scene.pace.is_over() {
        if let Some(stream) = port.accept(Duration::from_millis(50))? {
            scene.pace.blow();
            lanes += 1;
            // Half of them are ended at once, half never answered.
            if lanes % 2 == 0 {
                held.push(stream);
            }
        }
        control.poll(Duration::ZERO)?;
    }
    if lanes > 500 {
        scene.outcome.surprise(format!("{lanes} lanes were dialed within 3 s"));
    }
    let answer = control.verdict()?;
    scene.judge("a listener without lanes", answer, &[Answer::Ignored]);
    Ok(())
}

fn dialed_and_wild(scene: &mut Scene<'_>) -> Result<()> {
    for round in 0..3 {
        let port = Port::open(scene)?;
        let mut control = port.welcome(scene)?;
        let mut stream = port.accept(DIALS)?.ok_or(Gone::Silent("a lane"))?;
        let (hello, message) = stream.handshake()?;
        let HandshakeMessage::LaneHello(lane) = message else {
            return Err(Gone::Silent("a LaneHello"));
        };
        let nonce = random::unique()?;
        let secret = &control.secret;
        let (listener, challenge) =
            kvx_core::proto::LaneListener::new(&hello, &lane, secret, nonce)?;
        scene.pace.blow();
        stream.send(&challenge)?;
        let (_, proof) = stream.handshake()?;
        listener.handle_proof(&proof)?;
        let noise = scene.random.bytes(500);
        let wild = match round {
            0 => noise,
            1 => Frame::ack(9, 9).bytes(),
            _ => [b"KVXF".to_vec(), vec![0xff; 400]].concat(),
        };
        stream.send(&wild)?;
        let ended = stream.ends(crate::connection::PATIENCE);
        let answer = if ended { Answer::LaneEnded } else { Answer::Ignored };
        scene.judge("a wild lane", answer, &[Answer::LaneEnded]);
        let said =
            control.send(&Message::RegionsOpened(vec![kvx_core::wire::message::RegionOpened {
                region: kvx_core::id::RegionId::from_bits(5),
                slot: Ok(kvx_core::id::Slot(0)),
            }]));
        let answer = said.map_or(Ok(Answer::ControlEnded), |()| control.verdict())?;
        scene.judge("a wild message", answer, &[Answer::ControlEnded]);
    }
    Ok(())
}

fn told_lies(scene: &mut Scene<'_>) -> Result<()> {
    let mut stranger = |number: usize| RegionDescription {
        id: RegionId::new(number as u32, 1),
        key: RegionKey::new(scene.random.array()),
        base: scene.random.next() >> 1,
        len: 1 + (scene.random.next() >> 2),
        rights: Rights::all(),
        kind: MemoryKind::Host,
    };
    let full: Vec<RegionDescription> = (0..MAX_LISTED_REGIONS).map(&mut stranger).collect();
    let short = vec![stranger(1), stranger(1), stranger(2)];
    let list = |more, regions: &[RegionDescription]| {
        let regions = regions.to_vec();
        Message::RegionsListed { more, regions }
    };
    let endless = vec![list(true, &full); MAX_REGIONS / MAX_LISTED_REGIONS + 1];
    let (ended, ignored) = (&[Answer::ControlEnded], &[Answer::Ignored]);
    for (what, said, allowed) in [
        ("a list without end", endless, ended),
        ("a list said twice", vec![list(false, &short); 2], ended),
        ("a list of what is not there", vec![list(true, &full), list(false, &short)], ignored),
        ("no list", Vec::new(), ignored),
    ] {
        let mut control = asked(scene)?;
        let sent = said.iter().try_for_each(|message| control.send(message));
        judge_told(scene, what, control, sent, allowed)?;
    }
    // Bodies that do not parse: nothing with more to follow, and a region that wraps around.
    let mut wraps = Vec::new();
    list(false, &short).encode_body(&mut wraps)?;
    let base = wraps.len() - 22;
    wraps[base..base + 8].fill(0xff);
    for (what, body) in [("nothing, and more to follow", vec![1, 0, 0, 0, 0]), ("a wrap", wraps)] {
        let mut control = asked(scene)?;
        let bytes = control.forge(36, &body);
        let sent = control.stream.send(&bytes);
        judge_told(scene, what, control, sent, ended)?;
    }
    Ok(())
}

/// A connection on which the victim has asked for published regions.
fn asked(scene: &mut Scene<'_>) -> Result<Control> {
    let port = Port::open_for(scene, Ask::List)?;
    let mut control = port.welcome(scene)?;
    control.find("ListRegions", |message| matches!(message, Message::ListRegions).then_some(()))?;
    scene.pace.blow();
    Ok(control)
}

fn judge_told(
    scene: &mut Scene<'_>,
    what: &str,
    mut control: Control,
    sent: Result<()>,
    allowed: &[Answer],
) -> Result<()> {
    let answer = match sent {
        Ok(()) => control.verdict()?,
        Err(Gone::Ended | Gone::Full) => Answer::ControlEnded,
        Err(other) => return Err(other),
    };
    scene.judge(what, answer, allowed);
    control.leave();
    Ok(())
}
