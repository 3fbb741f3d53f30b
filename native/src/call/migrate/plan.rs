//! What there is to do, from what is installed and what was recorded. Touches no server.

use std::fmt;

use crate::call::schema::{Installed, Libraries, PACKAGE, Record, library_name};
use crate::lua::library::{self, sha1};
use crate::lua::protocol::Protocol;
use crate::wire::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Load {
        version: u32,
    },
    Replace {
        version: u32,
        /// Checksum of what is there.
        found: String,
    },
    /// The mark of an interrupted step is all that is left of it.
    Finish {
        what: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load { version } => write!(f, "load {}", library_name(*version)),
            Self::Replace { version, found } => write!(
                f,
                "replace {} (checksum {}…, not {}…)",
                library_name(*version),
                short(found),
                short(&expected(*version).unwrap_or_default())
            ),
            Self::Finish { what } => write!(f, "clear the mark of an interrupted step: {what}"),
        }
    }
}

/// A library found on the server, and how it compares with this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub version: u32,
    pub sha1: String,
    pub state: State,
    /// Server time in ms, where recorded.
    pub loaded_at: Option<i64>,
    /// Version of the package that loaded it, where recorded.
    pub package: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// This build's.
    Current,
    /// Of a version this build knows, with another checksum.
    Different,
    Older,
    Newer,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Different => "different",
            Self::Older => "older",
            Self::Newer => "newer",
        }
    }
}

pub fn found(installed: &[Installed], record: &Record) -> Vec<Found> {
    let mine = Protocol::get().version;
    installed
        .iter()
        .map(|library| {
            let state = match expected(library.version) {
                Some(sha1) if sha1 != library.sha1 => State::Different,
                _ if library.version == mine => State::Current,
                _ if library.version < mine => State::Older,
                _ => State::Newer,
            };
            // The record speaks of the library it names by checksum, not of one loaded by hand since.
            let recorded = record.of(library.version, "sha1") == Some(&library.sha1);
            let entry = record.versions.iter().find(|(version, _)| recorded && *version == library.version);
            Found {
                version: library.version,
                sha1: library.sha1.clone(),
                state,
                loaded_at: entry.and_then(|(_, entry)| entry["loaded_at"].as_i64()),
                package: entry.and_then(|(_, entry)| entry["package"].as_str().map(str::to_owned)),
            }
        })
        .collect()
}

pub fn steps(libraries: &Libraries, record: &Record, target: u32) -> Vec<Step> {
    let Libraries::Are(installed) = libraries else { return Vec::new() };
    let mut steps = Vec::new();
    match installed.iter().find(|library| library.version == target) {
        None => steps.push(Step::Load { version: target }),
        Some(library) if Some(&library.sha1) != expected(target).as_ref() => {
            steps.push(Step::Replace { version: target, found: library.sha1.clone() });
        }
        Some(_) => {}
    }
    if let Some(what) = record.dirty.as_ref().filter(|_| steps.is_empty()) {
        steps.push(Step::Finish { what: what.clone() });
    }
    steps
}

/// Whether a step would put something older in place of something newer, or replace what was released.
///
/// # Errors
/// [`Error::Library`] that says what stands in the way.
pub fn refuse(steps: &[Step], record: &Record, is_released: impl Fn(u32) -> bool) -> Result<(), Error> {
    for step in steps {
        let Step::Replace { version, found } = step else { continue };
        let name = library_name(*version);
        if is_released(*version) {
            return Err(Error::Library(format!(
                "the server's {name} (checksum {}…) is not the one that was released; it is replaced only with --force",
                short(found)
            )));
        }
        // Of a library loaded by hand nothing is recorded.
        let recorded = record.of(*version, "sha1") == Some(found);
        if let Some(package) = record.of(*version, "package").filter(|_| recorded)
            && release_number(package) > release_number(PACKAGE)
        {
            return Err(Error::Library(format!(
                "the server's {name} was loaded by Ardiq {package}, newer than this {PACKAGE}; it is replaced only \
                 with force"
            )));
        }
    }
    Ok(())
}

/// The checksum this build has for a version, if it carries it.
fn expected(version: u32) -> Option<String> {
    library::payload(version).map(|payload| sha1(&payload))
}

fn release_number(package: &str) -> Vec<u32> {
    package.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

fn short(sha1: &str) -> &str {
    &sha1[..8.min(sha1.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lua::library::Library;

    fn are(installed: Vec<Installed>) -> Libraries {
        Libraries::Are(installed)
    }

    fn mine() -> u32 {
        Protocol::get().version
    }

    fn current() -> Installed {
        Installed { version: mine(), sha1: Library::get().sha1().to_owned() }
    }

    fn other() -> Installed {
        Installed { version: mine(), sha1: "0123456789abcdef".to_owned() }
    }

    fn recorded(package: &str) -> Record {
        let entry = serde_json::json!({"sha1": other().sha1, "loaded_at": 5, "package": package});
        Record { versions: vec![(mine(), entry)], ..Record::default() }
    }

    #[test]
    fn a_fresh_server_lacks_the_library() {
        let steps = steps(&are(vec![]), &Record::default(), mine());
        assert_eq!(steps, [Step::Load { version: mine() }]);
        assert_eq!(steps[0].to_string(), format!("load {}", library_name(mine())));
    }

    #[test]
    fn nothing_is_pending_when_the_checksum_fits() {
        assert_eq!(steps(&are(vec![current()]), &Record::default(), mine()), []);
        let newer = Installed { version: mine() + 1, sha1: "x".to_owned() };
        assert_eq!(steps(&are(vec![current(), newer]), &Record::default(), mine()), []);
    }

    #[test]
    fn a_library_with_another_checksum_is_replaced() {
        let record = recorded(PACKAGE);
        let steps = steps(&are(vec![other()]), &record, mine());
        let replaced = format!("replace {} (checksum 01234567…, not ", library_name(mine()));
        assert!(steps[0].to_string().starts_with(&replaced), "{}", steps[0]);
        assert!(refuse(&steps, &record, |_| false).is_ok());
        let refused = refuse(&steps, &record, |version| version == mine()).unwrap_err().to_string();
        assert!(refused.ends_with("is not the one that was released; it is replaced only with --force"), "{refused}");
    }

    #[test]
    fn but_not_one_that_a_newer_package_loaded() {
        let record = recorded("999.0.0");
        let refused = refuse(&steps(&are(vec![other()]), &record, mine()), &record, |_| false).unwrap_err();
        assert!(refused.to_string().contains("999.0.0"), "{refused}");
    }

    #[test]
    fn what_was_interrupted_is_finished() {
        let what = format!("load {}", library_name(mine()));
        let record = Record { dirty: Some(what.clone()), ..Record::default() };
        assert_eq!(steps(&are(vec![current()]), &record, mine()), [Step::Finish { what }]);
        assert_eq!(steps(&are(vec![]), &record, mine()), [Step::Load { version: mine() }]);
    }

    #[test]
    fn libraries_are_compared_with_this_build() {
        let newer = Installed { version: mine() + 1, sha1: "x".to_owned() };
        let states: Vec<State> = found(&[current(), newer], &Record::default()).iter().map(|f| f.state).collect();
        assert_eq!(states, [State::Current, State::Newer]);
        let different = &found(&[other()], &recorded("0.0.9"))[0];
        assert_eq!((different.state, different.package.as_deref()), (State::Different, Some("0.0.9")));
        assert_eq!(found(&[current()], &recorded("0.0.9"))[0].package, None);
    }
}
