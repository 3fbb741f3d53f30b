//! Why TLS was refused, by what rustls says of it, and what to do. Opens nothing.

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// What to do, where `said` holds one of the known reasons: redis-rs passes on the text alone.
pub(super) fn advice(said: &str) -> Option<&'static str> {
    let advice = |(reason, advice): (Error, _)| said.contains(&reason.to_string()).then_some(advice);
    known().into_iter().find_map(advice)
}

fn known() -> Vec<(Error, &'static str)> {
    let untrusted = "the server's certificate is not signed by a trusted authority; name the file of its authority \
                     with ssl_ca_certs=";
    let missing = "the server requires a client certificate; name the file of yours with ssl_certfile=, and its key \
                   with ssl_keyfile=";
    let refused = "the server does not accept the certificate in ssl_certfile";
    let mut known = vec![
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
        assert_eq!(told("broken pipe"), None);
    }
}
