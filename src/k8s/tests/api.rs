//! A minimal API server for our calls: GET, POST and merge PATCH of single objects, lists of a namespace in
//! pages, with increasing `resourceVersion`s, and `Status` objects for errors.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};

/// The server's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Serves,
    /// Answers with this status and reason.
    Refuses(u16, &'static str),
    /// Forbids all objects, because the role is gone. Its version is open to everybody, unlike that of a
    /// starting API server, which refuses everything.
    Forbids,
    /// Answers with this status and an HTML page, as a proxy would.
    Proxies(u16),
    /// Answers with a malformed object.
    Garbles,
    /// Accepts requests and never answers.
    Hangs,
    /// Breaks connections in the middle of an answer.
    Breaks,
}

#[derive(Debug, Clone)]
pub struct Api {
    world: Arc<Mutex<World>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct World {
    objects: BTreeMap<String, Value>,
    /// All versions of each object.
    history: BTreeMap<String, Vec<Value>>,
    version: u64,
    mode: Mode,
    /// As `GET /path`.
    requests: Vec<String>,
    hold: Option<(String, Held)>,
    page_max: usize,
    port: u16,
    serving: Option<JoinHandle<()>>,
}

/// A request that is delayed before it is processed.
#[derive(Debug, Clone, Default)]
pub struct Held {
    arrived: Arc<Notify>,
    released: Arc<Notify>,
}

impl Held {
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub fn release(&self) {
        self.released.notify_one();
    }
}

impl Api {
    pub async fn start() -> Api {
        let world = World {
            objects: BTreeMap::new(),
            history: BTreeMap::new(),
            version: 100,
            mode: Mode::Serves,
            requests: Vec::new(),
            hold: None,
            page_max: usize::MAX,
            port: 0,
            serving: None,
        };
        let world = Arc::new(Mutex::new(world));
        let api = Api { world, changes: watch::Sender::new(0) };
        api.listen().await;
        api
    }

    pub fn url(&self) -> Uri {
        format!("http://127.0.0.1:{}", self.world().port).parse().unwrap()
    }

    /// Closes the port and all connections.
    pub async fn go_away(&self) {
        self.set_mode(Mode::Breaks);
        let serving = self.world().serving.take().unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    pub async fn come_back(&self) {
        self.listen().await;
        self.set_mode(Mode::Serves);
    }

    async fn listen(&self) {
        let port = self.world().port;
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let routes = Router::new().fallback(answer).with_state(self.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let mut world = self.world();
        (world.port, world.serving) = (port, Some(serving));
    }

    pub fn set_mode(&self, mode: Mode) {
        self.world().mode = mode;
    }

    /// Limits the pages of lists.
    pub fn set_page_max(&self, objects: usize) {
        self.world().page_max = objects;
    }

    /// Delays the next request with `text` in its body.
    pub fn hold(&self, text: &str) -> Held {
        let held = Held::default();
        self.world().hold = Some((text.into(), held.clone()));
        held
    }

    /// Creates or replaces an object, as another client would.
    pub fn put(&self, path: &str, object: Value) {
        self.world().store(path, object);
        self.changes.send_modify(|n| *n += 1);
    }

    pub fn edit(&self, path: &str, patch: &Value) {
        let mut object = self.object(path);
        merge(&mut object, patch);
        self.put(path, object);
    }

    pub fn delete(&self, path: &str) {
        self.world().objects.remove(path);
    }

    pub fn object(&self, path: &str) -> Value {
        self.world().objects[path].clone()
    }

    pub fn history(&self, path: &str) -> Vec<Value> {
        self.world().history.get(path).cloned().unwrap_or_default()
    }

    pub fn requests(&self) -> Vec<String> {
        self.world().requests.clone()
    }

    /// All objects of a collection.
    pub fn list(&self, collection: &str) -> Vec<Value> {
        let world = self.world();
        let inside = world.objects.iter().filter(|(path, _)| is_inside(path, collection));
        inside.map(|(_, object)| object.clone()).collect()
    }

    /// Waits until `holds` is true.
    #[track_caller]
    pub fn until(&self, what: &str, holds: impl Fn(&Api) -> bool) -> impl Future<Output = ()> {
        let (api, mut changes) = (self.clone(), self.changes.subscribe());
        let message = format!("{what}, at {}", std::panic::Location::caller());
        async move {
            let held = changes.wait_for(|_| holds(&api));
            let in_time = tokio::time::timeout(Duration::from_secs(10), held).await.is_ok();
            assert!(in_time, "waited in vain: {message}\n{:#?}", api.world().objects);
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

impl World {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        self.objects.insert(path.into(), object.clone());
        self.history.entry(path.into()).or_default().push(object.clone());
        object
    }

    /// A page of a list: `limit` and `continue` as in `?&limit=500&continue=1`.
    fn page(&self, collection: &str, query: &str) -> Response {
        let parameter = |name: &str| {
            let pair = query.split('&').filter_map(|pair| pair.split_once('='));
            pair.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<usize>().ok())
        };
        let inside = self.objects.iter().filter(|(path, _)| is_inside(path, collection));
        let objects: Vec<&Value> = inside.map(|(_, object)| object).collect();
        let limit = parameter("limit").unwrap_or(usize::MAX).min(self.page_max);
        let begin = parameter("continue").unwrap_or(0);
        let end = objects.len().min(begin.saturating_add(limit));
        let next = if end < objects.len() { end.to_string() } else { String::new() };
        answer_json(
            200,
            &json!({
                "kind": list_kind(collection), "apiVersion": "v1",
                "metadata": { "resourceVersion": self.version.to_string(), "continue": next },
                "items": objects[begin..end],
            }),
        )
    }

    fn serve(&mut self, method: &Method, uri: &Uri, body: &Bytes) -> Response {
        let path = uri.path();
        let present = self.objects.get(path).cloned();
        match (method.as_str(), present) {
            ("GET", Some(object)) => answer_json(200, &object),
            ("POST", None) => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) {
                    return status(409, "AlreadyExists", &path);
                }
                answer_json(201, &self.store(&path, object))
            }
            ("PATCH", Some(mut object)) => {
                let patch: Value = serde_json::from_slice(body).unwrap();
                let version = &patch["metadata"]["resourceVersion"];
                if *version != object["metadata"]["resourceVersion"] {
                    return status(409, "Conflict", path);
                }
                merge(&mut object, &patch);
                answer_json(200, &self.store(path, object))
            }
            ("GET", None) if is_collection(path) => {
                self.page(path, uri.query().unwrap_or_default())
            }
            (_, None) => status(404, "NotFound", path),
            _ => status(405, "MethodNotAllowed", path),
        }
    }
}

const VERSION: &str = "/version";

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
    })
}

async fn answer(State(api): State<Api>, method: Method, uri: Uri, body: Bytes) -> Response {
    let path = uri.path();
    let (mode, hold) = {
        let mut world = api.world();
        world.requests.push(format!("{method} {path}"));
        let text = String::from_utf8_lossy(&body);
        (world.mode, world.hold.take_if(|(held, _)| text.contains(held.as_str())))
    };
    api.changes.send_modify(|n| *n += 1);
    if let Some((_, held)) = hold {
        held.arrived.notify_one();
        held.released.notified().await;
    }
    let response = match mode {
        Mode::Serves => api.world().serve(&method, &uri, &body),
        Mode::Refuses(code, reason) => status(code, reason, path),
        Mode::Forbids if path == VERSION => answer_json(200, &version()),
        Mode::Forbids => status(403, "Forbidden", path),
        Mode::Proxies(code) => (StatusCode::from_u16(code).unwrap(), "<html>").into_response(),
        Mode::Garbles => answer_json(200, &json!({ "metadata": 7 })),
        Mode::Hangs => std::future::pending().await,
        Mode::Breaks => {
            let broken = stream::once(async { Err::<Bytes, _>(io::Error::other("gone")) });
            Body::from_stream(broken).into_response()
        }
    };
    api.changes.send_modify(|n| *n += 1);
    response
}

/// Whether the path ends with the name of a kind, after `namespaces/NAME`.
fn is_collection(path: &str) -> bool {
    path.rsplit('/').nth(2) == Some("namespaces")
}

fn list_kind(collection: &str) -> &'static str {
    match collection.rsplit('/').next() {
        Some("persistentvolumeclaims") => "PersistentVolumeClaimList",
        Some("endpointslices") => "EndpointSliceList",
        _ => "List",
    }
}

fn is_inside(path: &str, collection: &str) -> bool {
    path.strip_prefix(collection).is_some_and(|name| name.starts_with('/'))
}

fn answer_json(code: u16, value: &Value) -> Response {
    (StatusCode::from_u16(code).unwrap(), value.to_string()).into_response()
}

fn status(code: u16, reason: &str, path: &str) -> Response {
    let name = path.rsplit('/').next().unwrap();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("{name} {reason}"), "details": { "name": name },
    });
    answer_json(code, &status)
}

/// RFC 7386.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}
