//! Why TLS was refused, by what rustls says of it, and what to do; whether a server speaks it at all. Opens nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::Stream;

/// How long a handshake takes before it is made sure that the server speaks TLS.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
pub(super) const PLAIN: &str = "it answers without TLS";
pub(super) const SECURE: &str = "it answers in TLS alone";

const NO_TLS: &str =
    "the server speaks no TLS on this port: write redis for rediss in the URL, or name its port for TLS";
const TLS_ALONE: &str = "the server wants TLS on this port: write rediss for redis in the URL";

/// What to do, where `said` holds one of the known reasons: redis-rs passes on the text alone.
pub(super) fn advice(said: &str) -> Option<&'static str> {
    let advice = |(reason, advice): (Error, _)| said.contains(&reason.to_string()).then_some(advice);
    match said {
        _ if said.contains(PLAIN) => Some(NO_TLS),
        _ if said.contains(SECURE) => Some(TLS_ALONE),
        _ => known().into_iter().find_map(advice),
    }
}

/// Whether a server speaks plain text. To a handshake it says nothing, as it waits for the end of the line.
pub(super) async fn is_plain(stream: Box<dyn Stream>) -> bool {
    matches!(first_byte(stream, b"PING\r\n").await, Some(b'+' | b'-'))
}

/// Whether it speaks TLS: it sends an alert when a handshake is cut short.
pub(super) async fn is_secure(stream: Box<dyn Stream>) -> bool {
    matches!(first_byte(stream, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await, Some(0x15))
}

async fn first_byte(mut stream: Box<dyn Stream>, said: &[u8]) -> Option<u8> {
    stream.write_all(said).await.ok()?;
    stream.read_u8().await.ok()
}

fn known() -> Vec<(Error, &'static str)> {
    let untrusted = "the server's certificate is not signed by a trusted authority; name the file of its authority \
                     with ssl_ca_certs=";
    let missing = "the server requires a client certificate; name the file of yours with ssl_certfile=, and its key \
                   with ssl_keyfile=";
    let refused = "the server does not accept the certificate in ssl_certfile";
    let mut known = vec![
        (Error::InvalidMessage(InvalidMessage::InvalidContentType), NO_TLS),
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), untrusted),
        (Error::AlertReceived(AlertDescription::CertificateRequired), missing),
    ];
    let alerts = [
        AlertDescription::UnknownCA,
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
    ];
    known.extend(alerts.map(|alert| (Error::AlertReceived(alert), refused)));
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_apart() {
        let told = |said: &str| advice(&format!("the connection broke: {said} (at host:1)"));
        for (alert, word) in [("CertificateRequired", "ssl_keyfile"), ("UnknownCA", "does not accept")] {
            assert!(told(&format!("received fatal alert: {alert}")).is_some_and(|told| told.contains(word)), "{alert}");
        }
        assert!(told("invalid peer certificate: UnknownIssuer").is_some_and(|told| told.contains("ssl_ca_certs")));
        assert!(told(PLAIN).is_some_and(|told| told.contains("redis for rediss")));
        assert_eq!(told("broken pipe"), None);
    }
}
