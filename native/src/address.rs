//! What a server's URL says: where it is, who we are there, how the line is secured.
//! Opens nothing but the certificate files it names.

use std::path::PathBuf;
use std::sync::Arc;

use redis::{IntoConnectionInfo, RedisConnectionInfo};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use url::Url;

use crate::error::Error;

#[derive(Clone)]
pub struct Address {
    pub place: Place,
    /// User, password and database.
    pub login: RedisConnectionInfo,
    /// The URL without its password, for messages.
    pub shown: String,
}

#[derive(Clone)]
pub enum Place {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, name: ServerName<'static>, config: Arc<ClientConfig> },
    Unix(PathBuf),
}

/// Options of the URL's query.
#[derive(Default)]
struct Query {
    user: Option<String>,
    password: Option<String>,
    db: Option<i64>,
    ca_certs: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    unverified: bool,
}

impl Address {
    /// # Errors
    /// [`Error::Argument`] that names the part which cannot be used, never the password.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut url = Url::parse(text).map_err(|e| invalid(format!("not a URL: {e}")))?;
        let query = Query::parse(&url)?;
        let shown = shown(&url);
        let at = |what: String| invalid(format!("{shown}: {what}"));
        match url.scheme() {
            "unix" | "redis+unix" | "valkey+unix" => {
                let path = url.to_file_path().map_err(|()| at("no path to a socket".to_owned()))?;
                Ok(Self { place: Place::Unix(path), login: query.login(RedisConnectionInfo::default()), shown })
            }
            scheme @ ("redis" | "valkey" | "rediss" | "valkeys") => {
                let secure = scheme == "rediss" || scheme == "valkeys";
                // TLS is set up here; redis-rs reads the rest of the URL.
                url.set_fragment(None);
                url.set_query(None);
                url.set_scheme("redis").expect("both schemes are of one kind");
                let info = url.into_connection_info().map_err(|e| at(e.to_string()))?;
                let redis::ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
                    return Err(at("no host".to_owned()));
                };
                let place = if secure {
                    let name = ServerName::try_from(host.clone())
                        .map_err(|_| at(format!("{host:?} is no name a certificate could have")))?;
                    Place::Tls { name, config: Arc::new(query.tls().map_err(at)?), host, port }
                } else {
                    Place::Tcp { host, port }
                };
                Ok(Self { place, login: query.login(info.redis_settings().clone()), shown })
            }
            scheme => Err(at(format!(
                "unknown scheme {scheme:?}; known are redis://, rediss:// (TLS) and unix:// (a socket's path)"
            ))),
        }
    }
}

impl Address {
    /// Another node of the same cluster: same login, same TLS.
    ///
    /// # Errors
    /// [`Error::Argument`] when no certificate could have that name.
    pub fn at(&self, host: &str, port: u16) -> Result<Self, Error> {
        let (mut address, host) = (self.clone(), host.to_owned());
        address.place = match &self.place {
            Place::Tls { config, .. } => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| invalid(format!("{host:?} is no name a certificate could have")))?;
                Place::Tls { name, config: config.clone(), host, port }
            }
            _ => Place::Tcp { host, port },
        };
        address.shown = match &address.place {
            Place::Tls { host, port, .. } => format!("rediss://{host}:{port}"),
            Place::Tcp { host, port } => format!("redis://{host}:{port}"),
            Place::Unix(path) => format!("unix://{}", path.display()),
        };
        Ok(address)
    }
}

impl Query {
    fn parse(url: &Url) -> Result<Self, Error> {
        let mut query = Self::default();
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match name.as_ref() {
                "user" | "username" => query.user = Some(value),
                "pass" | "password" => query.password = Some(value),
                "db" => {
                    let db = value.parse().map_err(|_| invalid(format!("db={value:?} is no database number")))?;
                    query.db = Some(db);
                }
                "ssl_ca_certs" => query.ca_certs = Some(value.into()),
                "ssl_certfile" => query.certificate = Some(value.into()),
                "ssl_keyfile" => query.key = Some(value.into()),
                "ssl_cert_reqs" => match value.as_str() {
                    "required" => query.unverified = false,
                    "none" => query.unverified = true,
                    _ => {
                        return Err(invalid(format!("ssl_cert_reqs={value:?} is neither required nor none")));
                    }
                },
                // Clients disagree about it, and answers are the same for what is asked here.
                "protocol" => {}
                other => {
                    return Err(invalid(format!(
                        "unknown option {other:?}; known are db, username, password, ssl_ca_certs, \
                         ssl_certfile, ssl_keyfile, ssl_cert_reqs"
                    )));
                }
            }
        }
        query.unverified |= url.fragment() == Some("insecure");
        Ok(query)
    }

    fn login(&self, mut login: RedisConnectionInfo) -> RedisConnectionInfo {
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

    fn tls(&self) -> Result<ClientConfig, String> {
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

fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    // Neither fails where there is a host; where there is none, there is no user either.
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.set_query(None);
    shown.set_fragment(None);
    shown.into()
}

fn invalid(what: String) -> Error {
    Error::Argument(format!("redis_url: {what}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match Address::parse(url) {
            Ok(_) => panic!("{url} was accepted"),
            Err(error) => error.to_string(),
        }
    }

    fn tcp(url: &str) -> (String, u16, i64) {
        let address = Address::parse(url).unwrap_or_else(|e| panic!("{e}"));
        match address.place {
            Place::Tcp { host, port } => (host, port, address.login.db()),
            _ => panic!("{url} is not plain TCP"),
        }
    }

    #[test]
    fn host_port_and_database() {
        assert_eq!(tcp("redis://localhost"), ("localhost".to_owned(), 6379, 0));
        assert_eq!(tcp("valkey://10.0.0.1:7000/3"), ("10.0.0.1".to_owned(), 7000, 3));
        assert_eq!(tcp("redis://[::1]:7000?db=2"), ("::1".to_owned(), 7000, 2));
    }

    #[test]
    fn the_password_is_used_and_never_shown() {
        let address = Address::parse("redis://me:p%40ss@h:1/2").unwrap();
        assert_eq!(address.login.username(), Some("me"));
        assert_eq!(address.login.password(), Some("p@ss"));
        assert_eq!(address.shown, "redis://h:1/2");
        assert_eq!(Address::parse("unix:///a/b?password=geheim").unwrap().shown, "unix:///a/b");
        for url in ["redis://:geheim@h/x", "redis://:geheim@h?colour=red", "http://:geheim@h/"] {
            assert!(!refused(url).contains("geheim"), "{}", refused(url));
        }
    }

    #[test]
    fn sockets() {
        let address = Address::parse("unix:///run/my%20redis.sock?db=1&password=p").unwrap();
        assert!(matches!(&address.place, Place::Unix(path) if path == &PathBuf::from("/run/my redis.sock")));
        assert_eq!((address.login.db(), address.login.password()), (1, Some("p")));
        assert!(matches!(Address::parse("redis+unix:///s").unwrap().place, Place::Unix(_)));
    }

    #[test]
    fn certificates_must_exist() {
        assert!(matches!(Address::parse("rediss://h?ssl_cert_reqs=none").unwrap().place, Place::Tls { .. }));
        assert!(matches!(Address::parse("rediss://h#insecure").unwrap().place, Place::Tls { .. }));
        let missing = refused("rediss://h?ssl_ca_certs=/no/such.pem");
        assert!(missing.contains("/no/such.pem"), "{missing}");
        assert!(refused("rediss://h?ssl_keyfile=/k&ssl_cert_reqs=none").contains("ssl_certfile"));
        assert!(refused("rediss://h?ssl_cert_reqs=maybe").contains("maybe"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(refused("localhost:6379").contains("unknown scheme \"localhost\""));
        assert!(refused("http://h/").contains("\"http\""));
        assert!(refused("redis://h/x").contains("database"));
        assert!(refused("redis://h?colour=red").contains("\"colour\""));
        assert!(refused("redis://h?db=x").contains("\"x\""));
        assert!(refused("nonsense").contains("not a URL"));
    }
}
