//! An engine that lets in who holds its metadata: strangers, who do not, and holders of it who would
//! be somebody else.

use kvx_core::id::{Association, Incarnation};
use kvx_core::proto::{Auth, AuthKey, Dialer};
use kvx_core::wire::handshake::{Confirm, HandshakeMessage};
use kvx_core::wire::metadata::MetadataSecret;

use crate::Attack;
use crate::connection::{Control, Gone, Me, Result, Stream, reason};
use crate::outcome::Answer;
use crate::scene::Scene;
use crate::{clock, random};

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "without-metadata",
        what: "handshakes by no key, by an auth key, by guessed and by bent secrets of the metadata",
        must: "each is rejected as Method or WrongKey",
        run: without_metadata,
    },
    Attack {
        name: "anothers-place",
        what: "a handshake by the victim's metadata under the id of an engine that is connected by it, \
               in another life and in the same, with forged marks",
        must: "it is rejected as NameTaken, and that engine stays connected",
        run: anothers_place,
    },
];

/// The secret of a victim that has one.
fn secret(scene: &Scene<'_>) -> Result<MetadataSecret> {
    let lacks = "the metadata of an engine that lets in who holds it";
    scene.target.secret().cloned().ok_or(Gone::Lacks(lacks))
}

fn without_metadata(scene: &mut Scene<'_>) -> Result<()> {
    let secret = secret(scene)?;
    let bent = |bit: usize| {
        let mut bytes = *secret.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Auth::Metadata(MetadataSecret::new(bytes))
    };
    let mut strangers = vec![
        Auth::Insecure,
        Auth::SharedKey(AuthKey::new(scene.random.bytes(32))),
        // What lets in by one way is nothing by another.
        Auth::SharedKey(AuthKey::new(secret.as_bytes().to_vec())),
        Auth::Metadata(MetadataSecret::new([0; MetadataSecret::LEN])),
        Auth::Metadata(MetadataSecret::new(scene.random.array())),
    ];
    strangers.extend((0..256).step_by(5).map(bent));
    let kept_out = &[Answer::Rejected("Method"), Answer::Rejected("WrongKey")];
    for auth in strangers {
        let mut stream = Stream::connect(scene.target.address)?;
        let me = Me::new()?.identity();
        let (_, hello) = Dialer::new(&me, &auth, None, random::unique()?, clock::now())?;
        stream.send(&hello)?;
        // Whatever the Welcome proves, a Confirm that proves nothing follows it.
        let confirm = Confirm { time: clock::now(), mark: None, mac: scene.random.array() };
        let confirm = HandshakeMessage::Confirm(confirm).encode()?;
        let outcome = stream.handshake().and_then(|_| {
            stream.send(&confirm)?;
            stream.handshake()
        });
        scene.judge_handshake("a stranger", outcome, kept_out)?;
    }
    Ok(())
}

fn anothers_place(scene: &mut Scene<'_>) -> Result<()> {
    let victims = secret(scene)?;
    let lacks = "an engine that the victim knows";
    let other = scene.target.other.clone().ok_or(Gone::Lacks(lacks))?;
    // What the victim tells one that comes under its own name.
    let own = scene.enter()?;
    let (mine, theirs) = own.associations()?;
    let guess = Association(scene.random.next() | 1);
    for incarnation in [other.incarnation, Incarnation(random::unique()?)] {
        for association in [None, Some(mine), Some(theirs), Some(guess)] {
            for proves in [None, Some(&victims)] {
                let me = Me { engine: other.engine, incarnation, ..Me::new()? };
                let dialed = Control::dial_marked(scene.target, me, |dialer| match association {
                    Some(association) => dialer.marked(association, proves),
                    None => dialer,
                });
                // Only after its proof can a bearer be told from another.
                let answer = match dialed.and_then(|mut control| control.stream.handshake()) {
                    Err(Gone::Rejected(error)) => Answer::Rejected(reason(&error)),
                    Err(Gone::Ended) => Answer::HungUp,
                    // What comes is no handshake any more.
                    Ok(_) | Err(Gone::Own(_)) => Answer::Accepted,
                    Err(gone) => return Err(gone),
                };
                scene.pace.blow();
                // The latter while the victim's own dial to the other is young.
                let may = &[Answer::Rejected("NameTaken"), Answer::Rejected("Duplicate")];
                scene.judge("another's place", answer, may);
            }
        }
    }
    own.leave();
    Ok(())
}
