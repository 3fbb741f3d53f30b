//! Whether a URL means what its writer meant: a raw `#`, `/` or `?` ends a password early, and what is left of it would
//! be taken for a host.

use super::invalid;
use crate::wire::error::Error;

/// # Errors
/// [`Error::Argument`] without a word of the URL.
pub(super) fn check(text: &str) -> Result<(), Error> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(invalid("not a URL, such as redis://localhost:6379".to_owned()));
    };
    if text.contains(char::is_control) {
        return Err(misplaced("a control character"));
    }
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    if fragment.is_some_and(|fragment| fragment != "insecure") {
        return Err(misplaced("#"));
    }
    let (before, _) = rest.split_once('?').unwrap_or((rest, ""));
    let is_socket = scheme.ends_with("unix");
    if !is_socket && before.split_once('/').is_some_and(|(_, path)| path.contains('@')) {
        return Err(misplaced("/"));
    }
    Ok(())
}

/// What is wrong, unless it may quote the rest of a password.
pub(super) fn hide(text: &str, what: &str) -> Error {
    match text.split_once('?') {
        Some((_, query)) if query.contains('@') => misplaced("?"),
        Some((_, query)) if query.contains("pass") => misplaced("&"),
        _ => invalid(what.to_owned()),
    }
}

fn misplaced(what: &str) -> Error {
    invalid(format!(
        "there is {what} where none is allowed: percent-encode the password (%23 for #, %2F for /, %3F for ?, %26 for &, \
         %40 for @)"
    ))
}
