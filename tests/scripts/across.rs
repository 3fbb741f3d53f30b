//! What one version of the library wrote, in the hands of another: each fixture's `given` is told to one, its `when` to the
//! other. The other is the version before this one, as released; where none was released, this one under that number.

use std::path::Path;
use std::sync::OnceLock;

use _core::lua::library::Library;
use _core::lua::protocol::{Protocol, TEXT};

use crate::fixture::Fixture;
use crate::server::Server;
use crate::story::{self, Outcome};

pub struct Before {
    protocol: Protocol,
    payload: String,
}

impl Before {
    pub fn get() -> &'static Self {
        static BEFORE: OnceLock<Before> = OnceLock::new();
        BEFORE.get_or_init(|| {
            let this = Protocol::get();
            let version = this.version - 1;
            let name = format!("ardiq_v{version}");
            let (payload, protocol) = if version > 0 {
                let released = |suffix: &str| {
                    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../lua/releases/{name}.{suffix}"));
                    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                };
                (released("lua"), released("json"))
            } else {
                (Library::get().payload().replace(&this.library, &name), TEXT.replace(&this.library, &name))
            };
            let mut protocol = Protocol::parse(&protocol).expect("its protocol");
            protocol.version = version;
            Self { protocol, payload }
        })
    }

    /// Loads it where that was not done yet. Replies whether the server takes another library beside this build's.
    pub fn is_spoken_by(&self, server: &mut Server) -> bool {
        if server.speaks_before.is_none() {
            server.speaks_before = Some(server.load(&self.protocol.library, &self.payload));
        }
        server.speaks_before == Some(true)
    }
}

/// Where the reply, or what became of a task, depends on who wrote the data; and where a queue is out of order then.
/// `expected`: what comes of the fixture where this version does all.
pub fn misunderstood(server: &mut Server, fixture: &Fixture, expected: &Outcome) -> Vec<String> {
    let (this, before) = (Protocol::get(), &Before::get().protocol);
    if fixture.since > before.version {
        return Vec::new();
    }
    let mut told =
        |given: &'static Protocol, when: &'static Protocol| story::outline(server, &fixture.told_to(given, when)?);
    let mut found = Vec::new();
    for (who, given, when) in [("written by", before, this), ("told to", this, before)] {
        let (outcome, problems) = match told(given, when) {
            Ok(told) => told,
            Err(refusal) => {
                found.push(format!("{who} {}: {refusal} (is it of a later version? `since`)", before.library));
                continue;
            }
        };
        // What the one before answers may be its own, as long as it answers its own data likewise.
        let mut is_own = || std::ptr::eq(when, before) && told(before, before).is_ok_and(|(own, _)| own == outcome);
        if outcome != *expected && !is_own() {
            found.push(format!(
                "{who} {}: {}, tasks {:?}; not: {}, tasks {:?}",
                before.library, outcome.reply, outcome.states, expected.reply, expected.states
            ));
        }
        found.extend(problems.iter().map(|problem| format!("{who} {}: {problem}", before.library)));
    }
    found
}
