//! The probes of a worker process and its metrics, over HTTP from the I/O thread: they answer while Python is stuck.
//!
//! Owns: what is watched, when a worker is ready, who is answered what. Must not know: Python; how a worker works.
//!
//! | module | owns |
//! |---|---|
//! | `text` | the metrics in Prometheus' text format |
//! | `queue` | what the server is asked for them |

use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::engine::worker::Worker;
use crate::engine::worker::slots::Phase;

mod queue;
mod text;

pub use queue::in_time;
pub use text::render_queues;

/// Longer without an answer from the server a worker is not ready; sooner where its lease is shorter.
const SILENT: Duration = Duration::from_secs(10);
/// One request and its answer take no longer, whoever asks.
const LONGEST: Duration = Duration::from_secs(5);
/// More who ask at once have to wait.
const MOST_CONNECTIONS: usize = 64;

/// What is watched in this process.
#[derive(Default)]
pub struct Health {
    watched: Mutex<Vec<Watched>>,
}

/// One queue's worker.
#[derive(Clone)]
struct Watched {
    queue: String,
    worker: Worker,
    state: Arc<queue::Cache>,
}

impl Watched {
    /// What the server says of the queue, where it does so in time.
    async fn asked(&self) -> Option<queue::State> {
        self.state.state(self.worker.dispatcher()).await
    }
}

impl Health {
    /// Answers for this worker, too.
    pub fn watch(&self, queue: String, worker: Worker) {
        let mut watched = self.watched();
        // One that has ended makes room for the next one of its queue.
        watched.retain(|other| other.queue != queue);
        watched.push(Watched { queue, worker, state: Arc::default() });
    }

    /// Why this process does not take tasks, or nothing when it does.
    fn why_not_ready(&self) -> Option<String> {
        let watched = self.watched();
        if watched.is_empty() {
            return Some("starting".to_owned());
        }
        let reasons = watched.iter().filter_map(|one| {
            let why = why_not_ready(&one.worker)?;
            Some(if watched.len() > 1 { format!("queue {}: {why}", one.queue) } else { why })
        });
        let reasons: Vec<_> = reasons.collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// That it lives: whoever reads this was answered.
    fn how_it_lives(&self) -> String {
        match self.watched().iter().find_map(|one| stalled(&one.worker)) {
            Some(stalled) => format!("alive, but {stalled}"),
            None => "alive".to_owned(),
        }
    }

    fn watched(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/live" => plain(StatusCode::OK, &self.how_it_lives()),
            "/ready" => match self.why_not_ready() {
                None => plain(StatusCode::OK, "ready"),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}")),
            },
            "/metrics" => {
                let watched = self.watched().clone();
                let mut answer = Response::new(text::render(&watched).await);
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE));
                answer
            }
            _ => plain(StatusCode::NOT_FOUND, "the paths are /live, /ready and /metrics"),
        }
    }
}

fn why_not_ready(worker: &Worker) -> Option<String> {
    let figures = worker.figures();
    match figures.phase {
        Phase::Working => {}
        Phase::Draining => return Some("draining: it ends when the running tasks have ended".to_owned()),
        Phase::Ended => return Some("it has ended".to_owned()),
    }
    match figures.answered_ago {
        None => return Some("it has not joined its queue".to_owned()),
        Some(ago) if ago > SILENT.min(figures.lease) => {
            return Some(format!("no answer from the server for {:.1} s", ago.as_secs_f64()));
        }
        Some(_) => {}
    }
    stalled(worker)
}

fn stalled(worker: &Worker) -> Option<String> {
    let stall = worker.stall().filter(|stall| !stall.stalled().is_zero())?;
    let what = if stall.is_held() { "the interpreter is held and its event loop" } else { "its event loop" };
    Some(format!("{what} has not run for {:.1} s", stall.stalled().as_secs_f64()))
}

fn plain(status: StatusCode, line: &str) -> Response<String> {
    let mut answer = Response::new(format!("{line}\n"));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Takes a place to listen at; its address, where the system chose the port.
///
/// # Errors
/// What the system says against it.
pub fn bind(host: &str, port: u16) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Answers whoever comes, for ever.
pub async fn serve(listener: TcpListener, health: Arc<Health>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    let _ = timeout(LONGEST, converse(stream, health)).await;
                    drop(place);
                });
            }
            Err(error) if is_the_peers(&error) => {}
            // Out of descriptors, most likely: they may come free.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One request and its answer.
async fn converse(stream: TcpStream, health: Arc<Health>) {
    let answer = service_fn(|request| {
        let health = health.clone();
        async move { Ok::<_, Infallible>(health.answer(&request).await) }
    });
    // It fails when the peer goes away or speaks no HTTP, which is the peer's to know.
    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer).await;
}

fn is_the_peers(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}
