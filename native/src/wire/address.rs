//! What a server's URL says: where it is, who we are there, how the line is secured.
//! Opens nothing but the certificate files it names.

mod encoding;
mod options;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use redis::{IntoConnectionInfo, RedisConnectionInfo};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use url::Url;

use crate::wire::error::Error;
use options::Query;

const SENTINEL_PORT: u16 = 26379;

#[derive(Clone)]
pub struct Address {
    pub kind: Kind,
    /// Where to begin: the server, nodes of the cluster, or the Sentinels.
    pub places: Vec<Place>,
    /// User, password and database.
    pub login: RedisConnectionInfo,
    /// The URL without its password, for messages.
    pub shown: String,
}

/// What is at the places.
#[derive(Clone)]
pub enum Kind {
    /// A server; should it be of a cluster, then as with that.
    Server,
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels, who know where the primary of a service is.
    Sentinel { service: String, login: RedisConnectionInfo },
}

#[derive(Clone)]
pub enum Place {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, name: ServerName<'static>, config: Arc<ClientConfig> },
    Unix(PathBuf),
}

impl Address {
    /// # Errors
    /// [`Error::Argument`] that names the part which cannot be used, never the password.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        encoding::check(text)?;
        let (first, others) = hosts(text);
        let mut url = Url::parse(&first).map_err(|e| encoding::hide(text, &format!("not a URL: {e}")))?;
        let query = Query::parse(&url)?;
        let shown = shown(&url, &others);
        let at = |what: String| invalid(format!("{shown}: {what}"));
        let scheme = url.scheme().to_owned();
        let (transport, form) = scheme.split_once('+').unwrap_or((&scheme, ""));
        if matches!(scheme.as_str(), "unix" | "redis+unix" | "valkey+unix") {
            let path = url.to_file_path().map_err(|()| at("the path of the socket is missing".to_owned()))?;
            let login = query.login(RedisConnectionInfo::default());
            return Ok(Self { kind: Kind::Server, places: vec![Place::Unix(path)], login, shown });
        }
        let secure = match transport {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(at(unknown(&scheme))),
        };
        let kind = match form {
            "" => Kind::Server,
            "cluster" => Kind::Cluster,
            "sentinel" => {
                let service = take_service(&mut url);
                let service =
                    service.ok_or_else(|| at("missing service: redis+sentinel://HOST:PORT/SERVICE".to_owned()))?;
                url.port().is_none().then(|| url.set_port(Some(SENTINEL_PORT)));
                Kind::Sentinel { service, login: query.sentinel_login() }
            }
            _ => return Err(at(unknown(&scheme))),
        };
        if query.names_sentinels() && !matches!(kind, Kind::Sentinel { .. }) {
            return Err(at("sentinel_username and sentinel_password go with redis+sentinel://".to_owned()));
        }
        if !others.is_empty() && matches!(kind, Kind::Server) {
            return Err(at("several hosts: write redis+cluster:// or redis+sentinel://".to_owned()));
        }
        // TLS is set up here; redis-rs reads the rest of the URL.
        url.set_fragment(None);
        url.set_query(None);
        // Between two schemes that are not the web's, a URL is free to change.
        url.set_scheme("redis").map_err(|()| at("no host".to_owned()))?;
        let info = url.into_connection_info().map_err(|e| {
            let told = e.to_string();
            at(told.strip_suffix("- InvalidClientConfig").unwrap_or(&told).trim_end().to_owned())
        })?;
        let redis::ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
            return Err(at("no host".to_owned()));
        };
        let first = if secure {
            Place::Tls { name: name_of(&host).map_err(at)?, config: Arc::new(query.tls().map_err(at)?), host, port }
        } else {
            Place::Tcp { host, port }
        };
        let port = if matches!(kind, Kind::Sentinel { .. }) { SENTINEL_PORT } else { 6379 };
        let mut places = vec![first.clone()];
        for other in others {
            let (host, port) = host_and_port(&other, port).map_err(at)?;
            places.push(first.at(&host, port)?);
        }
        Ok(Self { kind, places, login: query.login(info.redis_settings().clone()), shown })
    }

    /// The one server at a place that this address led to: same login.
    pub fn only(&self, place: Place) -> Self {
        let secure = matches!(place, Place::Tls { .. });
        let shown = format!("{}://{place}", if secure { "rediss" } else { "redis" });
        Self { kind: Kind::Server, places: vec![place], login: self.login.clone(), shown }
    }
}

impl Place {
    /// Another server's, reached with the same TLS. No host: the same one.
    ///
    /// # Errors
    /// [`Error::Argument`] when no certificate could have that name.
    pub fn at(&self, host: &str, port: u16) -> Result<Self, Error> {
        Ok(match self {
            Self::Tls { host: own, config, .. } => {
                let host = if host.is_empty() { own } else { host }.to_owned();
                Self::Tls { name: name_of(&host).map_err(invalid)?, config: config.clone(), host, port }
            }
            Self::Tcp { host: own, .. } => {
                Self::Tcp { host: if host.is_empty() { own } else { host }.to_owned(), port }
            }
            Self::Unix(_) => Self::Tcp { host: if host.is_empty() { "localhost" } else { host }.to_owned(), port },
        })
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Tcp { host, port } | Self::Tls { host, port, .. },
                Self::Tcp { host: other_host, port: other_port } | Self::Tls { host: other_host, port: other_port, .. },
            ) => host == other_host && port == other_port,
            (Self::Unix(path), Self::Unix(other)) => path == other,
            _ => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port, .. } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The URL with the first of its hosts alone, and the other hosts: a URL proper has one.
fn hosts(text: &str) -> (String, Vec<String>) {
    let Some((scheme, rest)) = text.split_once("://") else { return (text.to_owned(), Vec::new()) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, hosts) = authority
        .rsplit_once('@')
        .map_or(("", authority), |(_, hosts)| authority.split_at(authority.len() - hosts.len()));
    let mut hosts = hosts.split(',');
    let first = hosts.next().unwrap_or_default();
    (format!("{scheme}://{user}{first}{tail}"), hosts.map(str::to_owned).collect())
}

fn host_and_port(text: &str, port: u16) -> Result<(String, u16), String> {
    let parsed = Url::parse(&format!("redis://{text}")).map_err(|e| format!("{text:?} is not a host and port: {e}"))?;
    match parsed.host_str() {
        // An address of IPv6 stands in brackets, which are not part of it.
        Some(host) if !host.is_empty() && parsed.path().is_empty() => {
            Ok((host.trim_matches(['[', ']']).to_owned(), parsed.port().unwrap_or(port)))
        }
        _ => Err(format!("{text:?} is not a host and port")),
    }
}

/// Takes the service out of `/service/db`.
fn take_service(url: &mut Url) -> Option<String> {
    let path = url.path().trim_start_matches('/').to_owned();
    let (service, db) = path.split_once('/').unwrap_or((&path, ""));
    url.set_path(db);
    let service = percent_decoded(service);
    (!service.is_empty()).then_some(service)
}

/// By the only decoder at hand: that of a query.
fn percent_decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn name_of(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned()).map_err(|_| format!("{host:?} is not a name that a certificate can have"))
}

fn unknown(scheme: &str) -> String {
    format!(
        "unknown scheme {scheme:?}; known are redis://, rediss:// (TLS), unix:// (a socket's path), redis+cluster:// and \
         redis+sentinel:// (rediss+… with TLS)"
    )
}

fn shown(url: &Url, others: &[String]) -> String {
    let mut shown = url.clone();
    // Neither fails where there is a host; where there is none, there is no user either.
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.set_query(None);
    shown.set_fragment(None);
    let text = String::from(shown);
    if others.is_empty() {
        return text;
    }
    let path = text.len() - url.path().len();
    format!("{},{}{}", &text[..path], others.join(","), &text[path..])
}

fn invalid(what: String) -> Error {
    Error::Argument(format!("redis_url: {what}"))
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
        let db = address.login.db();
        match address.places.into_iter().next().unwrap() {
            Place::Tcp { host, port } => (host, port, db),
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
        assert!(matches!(&address.places[0], Place::Unix(path) if path == &PathBuf::from("/run/my redis.sock")));
        assert_eq!((address.login.db(), address.login.password()), (1, Some("p")));
        assert!(matches!(Address::parse("redis+unix:///s").unwrap().places[0], Place::Unix(_)));
    }

    #[test]
    fn a_password_arrives_as_it_was_written_or_is_refused_unseen() {
        let hosts =
            ["redis://%@h:1/2", "rediss://%@h#insecure", "valkey+cluster://%@h:1,i:2", "redis+sentinel://%@h,i/main/3"];
        let queries =
            ["redis://h:1?password=%", "redis+sentinel://h/main?sentinel_password=%&db=1", "unix:///h?pass=%"];
        let odd = ('!'..='~').chain([' ', '\t', '\n', 'ß']).filter(|c| !c.is_ascii_alphanumeric() && *c != '%');
        for (a, b) in odd.clone().flat_map(|a| odd.clone().map(move |b| (a, b))) {
            // As in a URL whose password ends too early: what is left could be a port.
            let written = format!("12{a}geheim{b}3");
            for user in ["", "me", "12"] {
                for url in hosts.map(|url| url.replace('%', &format!("{user}:{written}"))) {
                    check(&url, &written, &[a, b]);
                }
            }
            // There `+` is a blank, by the rules of queries.
            for url in queries.map(|url| url.replace('%', &written)).iter().filter(|_| a != '+' && b != '+') {
                check(url, &written, &[a, b]);
            }
        }
    }

    fn check(url: &str, written: &str, odd: &[char]) {
        match Address::parse(url) {
            Ok(address) => {
                let login = match &address.kind {
                    Kind::Sentinel { login, .. } if url.contains("sentinel_") => login,
                    _ => &address.login,
                };
                assert_eq!(login.password(), Some(written), "{url}");
                assert!(address.places[0].to_string().contains('h'), "{url} leads to {}", address.places[0]);
                assert!(!address.shown.contains("geheim"), "{}", address.shown);
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("percent-encode the password"), "{url}: {said}");
                assert!(!said.contains("geheim") && !said.contains("12"), "{url}: {said}");
                assert!(odd.iter().any(|c| c.is_control() || "#/?&".contains(*c)), "{url} needs no refusal: {said}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_a_password_is_none() {
        assert_eq!(places("unix:///run/me@here.sock"), ["/run/me@here.sock"]);
        assert_eq!(places("redis://h:1?password=a@b"), ["h:1"]);
        assert_eq!(places("redis://h:1\n"), ["h:1"]);
        assert!(refused("rediss://h#secure").contains("%23"));
        assert!(refused("redis+sentinel://h/my@main").contains("%40"));
        assert_eq!(places("redis+sentinel://h/my%40main"), ["h:26379"]);
    }

    fn places(url: &str) -> Vec<String> {
        Address::parse(url).unwrap_or_else(|e| panic!("{e}")).places.iter().map(Place::to_string).collect()
    }

    #[test]
    fn clusters() {
        let address = Address::parse("redis+cluster://me:p,@a:7000,b,[::1]:7002?password=q").unwrap();
        assert!(matches!(address.kind, Kind::Cluster));
        assert_eq!((address.login.username(), address.login.password()), (Some("me"), Some("q")));
        assert_eq!(address.shown, "redis+cluster://a:7000,b,[::1]:7002");
        assert_eq!(places("valkey+cluster://a,b:1,[::1]:7002"), ["a:6379", "b:1", "[::1]:7002"]);
        assert!(refused("redis://a,b:1").contains("redis+cluster://"));
        assert!(refused("redis+cluster://a,b:x").contains("\"b:x\""));
        assert!(refused("redis+cluster://a,").contains("\"\""));
        assert!(refused("redis+ring://a").contains("\"redis+ring\""));
    }

    #[test]
    fn sentinels() {
        let address = Address::parse("redis+sentinel://:p@a,b:1/my%2Fmain/3?sentinel_password=s").unwrap();
        let Kind::Sentinel { service, login } = address.kind else { panic!("not a Sentinel") };
        assert_eq!((service.as_str(), login.password(), login.db()), ("my/main", Some("s"), 0));
        assert_eq!((address.login.password(), address.login.db()), (Some("p"), 3));
        assert_eq!(address.shown, "redis+sentinel://a,b:1/my%2Fmain/3");
        assert_eq!(places("redis+sentinel://a,b:1/main"), ["a:26379", "b:1"]);
        assert!(refused("redis+sentinel://a,b").contains("missing service"));
        assert!(refused("redis+sentinel://a/main/x").contains("database"));
        assert!(refused("redis://a?sentinel_password=p").contains("redis+sentinel://"));
    }

    #[test]
    fn the_tls_of_all_places_is_one() {
        let address = Address::parse("rediss+cluster://a,b:1?ssl_cert_reqs=none").unwrap();
        assert!(address.places.iter().all(|place| matches!(place, Place::Tls { .. })));
        assert_eq!(address.only(address.places[1].at("", 2).unwrap()).shown, "rediss://b:2");
    }

    #[test]
    fn certificates_must_exist() {
        assert!(matches!(Address::parse("rediss://h?ssl_cert_reqs=none").unwrap().places[0], Place::Tls { .. }));
        assert!(matches!(Address::parse("rediss://h#insecure").unwrap().places[0], Place::Tls { .. }));
        let missing = refused("rediss://h?ssl_ca_certs=/no/such.pem");
        assert!(missing.contains("/no/such.pem"), "{missing}");
        assert!(refused("rediss://h?ssl_keyfile=/k&ssl_cert_reqs=none").contains("ssl_certfile"));
        assert!(refused("rediss://h?ssl_cert_reqs=maybe").contains("maybe"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(refused("localhost:6379").contains("not a URL"));
        assert!(refused("me:geheim@localhost:6379").ends_with("such as redis://localhost:6379"));
        assert!(refused("http://h/").contains("\"http\""));
        assert!(refused("redis://h/x").ends_with("Invalid database number"), "{}", refused("redis://h/x"));
        assert!(refused("redis://h?colour=red").contains("\"colour\""));
        assert!(refused("redis://h?db=x").contains("\"x\""));
        assert!(refused("nonsense").contains("not a URL"));
    }
}
