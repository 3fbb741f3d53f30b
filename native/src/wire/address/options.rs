//! The options of a URL's query: who we are, whom to trust, with which certificate.

use std::path::PathBuf;
use std::sync::Arc;

use redis::RedisConnectionInfo;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use url::Url;

use super::encoding;
use crate::wire::error::Error;

/// Options of the URL's query.
#[derive(Default)]
pub(super) struct Query {
    user: Option<String>,
    password: Option<String>,
    db: Option<i64>,
    ca_certs: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    unverified: bool,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
}

impl Query {
    pub fn parse(url: &Url) -> Result<Self, Error> {
        Self::read(url).map_err(|what| encoding::hide(url.as_str(), &what))
    }

    fn read(url: &Url) -> Result<Self, String> {
        let mut query = Self::default();
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match name.as_ref() {
                "user" | "username" => query.user = Some(value),
                "pass" | "password" => query.password = Some(value),
                "db" => {
                    let db = value.parse().map_err(|_| format!("db={value:?} is not a database number"))?;
                    query.db = Some(db);
                }
                "ssl_ca_certs" => query.ca_certs = Some(value.into()),
                "ssl_certfile" => query.certificate = Some(value.into()),
                "ssl_keyfile" => query.key = Some(value.into()),
                "ssl_cert_reqs" => match value.as_str() {
                    "required" => query.unverified = false,
                    "none" => query.unverified = true,
                    _ => {
                        return Err(format!("ssl_cert_reqs={value:?} must be required or none"));
                    }
                },
                "sentinel_username" => query.sentinel_user = Some(value),
                "sentinel_password" => query.sentinel_password = Some(value),
                // Clients disagree about it, and answers are the same for what is asked here.
                "protocol" => {}
                other => {
                    return Err(format!(
                        "unknown option {other:?}; known are db, username, password, ssl_ca_certs, \
                         ssl_certfile, ssl_keyfile, ssl_cert_reqs, sentinel_username, sentinel_password"
                    ));
                }
            }
        }
        query.unverified |= url.fragment() == Some("insecure");
        Ok(query)
    }

    pub fn login(&self, mut login: RedisConnectionInfo) -> RedisConnectionInfo {
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        if let Some(db) = self.db {
            login = login.set_db(db);
        }
        login.set_lib_name("ardiq", env!("CARGO_PKG_VERSION"))
    }

    /// Who we are to the Sentinels: nobody, unless options say it.
    pub fn sentinel_login(&self) -> RedisConnectionInfo {
        let as_server =
            Self { user: self.sentinel_user.clone(), password: self.sentinel_password.clone(), ..Self::default() };
        as_server.login(RedisConnectionInfo::default())
    }

    pub fn names_sentinels(&self) -> bool {
        self.sentinel_user.is_some() || self.sentinel_password.is_some()
    }

    pub fn tls(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?;
        let builder = if self.unverified {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        match (&self.certificate, &self.key) {
            (None, None) => Ok(builder.with_no_client_auth()),
            (Some(certificate), key) => {
                // One file may hold both.
                let key = key.as_ref().unwrap_or(certificate);
                let chain = certificates(certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|e| format!("no private key in {}: {e}", key.display()))?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|e| format!("certificate {} and key {}: {e}", certificate.display(), key.display()))
            }
            (None, Some(_)) => Err("ssl_keyfile without ssl_certfile".to_owned()),
        }
    }

    /// Whom to trust: the named authorities alone, else those of the system.
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = &self.ca_certs {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            return Ok(roots);
        }
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            return Err("this system has no certificate authorities; name a file with ssl_ca_certs".to_owned());
        }
        Ok(roots)
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |e| format!("no certificate in {}: {e}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("no certificate in {}", path.display()));
    }
    Ok(found)
}

/// For `ssl_cert_reqs=none`: the line is encrypted, whoever is at its other end.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
