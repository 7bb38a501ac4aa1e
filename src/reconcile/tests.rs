use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::*;
use crate::dataplane::fake::{FakeKernel, Injected, Operation};
use crate::dataplane::record::Record;
use crate::resolve::Settings;
use crate::source::{Change, parse};

/// The longest that a state may take to come; far more than the longest wait of the loop that these tests lead to.
const DEADLINE: Duration = Duration::from_secs(20);
const EPERM: i32 = 1;
const ENOMEM: i32 = 12;

/// One Service at 192.0.2.10:80 with an endpoint, and nothing else.
fn cluster() -> Vec<Event> {
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIPs": ["192.0.2.10"], "ports": [{"port": 80}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["198.51.100.1"]}],
    });
    vec![
        Event::Services(Change::Replaced(vec![
            parse::service(&service, "a test").unwrap(),
        ])),
        Event::EndpointSlices(Change::Replaced(vec![
            parse::endpoint_slice(&slice, "a test").unwrap(),
        ])),
        Event::Endpoints(Change::Replaced(Vec::new())),
        Event::Nodes(Change::Replaced(Vec::new())),
    ]
}

/// The loop's other end.
struct Outside(Sender<Input>);

impl Outside {
    async fn tell(&self, events: Vec<Event>) {
        self.0.send(Input::Events(events)).await.unwrap();
    }

    async fn ask(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        self.0.send(Input::Ask(reply)).await.unwrap();
        timeout(DEADLINE, answer).await.unwrap().unwrap()
    }

    async fn until(&self, state: State) -> Snapshot {
        let soon = async {
            loop {
                let snapshot = self.ask().await;
                if snapshot.state == state {
                    return snapshot;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, soon).await.unwrap()
    }
}

/// Runs the loop on this thread, as `weir run` does on one of its own, and what is outside on another; tells how many changes the
/// kernel saw.
fn run<F>(kernel: FakeKernel, outside: impl FnOnce(Outside) -> F + Send) -> u32
where
    F: Future<Output = ()>,
{
    run_and_look(kernel, outside).0
}

/// As [`run`]; also tells how many virtual servers and VIPs the kernel held after the last change.
fn run_and_look<F>(
    mut kernel: FakeKernel,
    outside: impl FnOnce(Outside) -> F + Send,
) -> (u32, (usize, usize))
where
    F: Future<Output = ()>,
{
    let changes = Rc::new(Cell::new((0, (0, 0))));
    let seen = Rc::clone(&changes);
    kernel.watch(move |kernel| {
        let vips = kernel
            .links
            .get("dummy-weir0")
            .map_or(0, |link| link.addresses.len());
        seen.set((seen.get().0 + 1, (kernel.virtual_servers.len(), vips)));
    });
    let pipeline = Pipeline::new("node-a", Settings::default());
    let dataplane = Dataplane::new(kernel, "dummy-weir0".to_owned(), Record::in_memory());
    let reconciler = Reconciler::new(pipeline, dataplane, Timing::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    let (inputs, waiting) = mpsc::channel(64);
    let (stopped, stop) = oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            runtime.block_on(async {
                outside(Outside(inputs)).await;
                // The loop still needs the timers; it ends because the channel is closed.
                drop(stop.await);
            });
        });
        reconciler.run(&handle, waiting);
        drop(stopped);
    });
    changes.get()
}

#[test]
fn who_asks_after_a_change_is_told_of_the_time_after_it() {
    let changes = run(FakeKernel::default(), |outside| async move {
        outside.tell(cluster()).await;
        let snapshot = outside.ask().await;
        assert_eq!(snapshot.state, State::Converged);
        assert_eq!(snapshot.reasons, Vec::<String>::new());
        assert_eq!(snapshot.node, "node-a");
        assert_eq!(snapshot.device, "dummy-weir0");
        assert_eq!(snapshot.desired.virtual_servers.len(), 3);
        let vip: IpAddr = "192.0.2.10".parse().unwrap();
        assert_eq!(snapshot.vips, [vip]);
        let pass = snapshot.last_pass.unwrap();
        assert!(pass.operations > 0);
        assert_eq!(pass.failed, 0);
    });
    assert!(changes > 0);
}

#[test]
fn without_the_whole_cluster_nothing_is_read_or_changed() {
    let mut kernel = FakeKernel::default();
    kernel.fail_when(|operation| panic!("{operation:?} is too early"));
    let changes = run(kernel, |outside| async move {
        assert_eq!(outside.ask().await.state, State::Waiting);
        let mut events = cluster();
        events.retain(|event| !matches!(event, Event::EndpointSlices(_)));
        outside.tell(events).await;
        let snapshot = outside.ask().await;
        assert_eq!(snapshot.state, State::Waiting);
        assert_eq!(
            snapshot.reasons,
            ["waiting for all objects of: EndpointSlice"]
        );
        assert_eq!(snapshot.last_pass, None);
    });
    assert_eq!(changes, 0);
}

#[test]
fn a_failed_read_is_degraded_and_changes_nothing() {
    let mut kernel = FakeKernel::default();
    kernel.fail_when(|operation| {
        matches!(operation, Operation::ReadVirtualServers).then_some(Injected::Refused(EPERM))
    });
    let changes = run(kernel, |outside| async move {
        outside.tell(cluster()).await;
        let snapshot = outside.ask().await;
        assert_eq!(snapshot.state, State::Degraded);
        assert_eq!(snapshot.reasons.len(), 1);
        assert_eq!(snapshot.last_pass, None);
        assert_eq!(snapshot.desired.virtual_servers.len(), 3);
    });
    assert_eq!(changes, 0);
}

#[test]
fn a_read_that_works_again_leads_to_convergence() {
    let mut kernel = FakeKernel::default();
    let mut failures = 2;
    kernel.fail_when(move |operation| {
        let fails = failures > 0 && matches!(operation, Operation::ReadVirtualServers);
        failures -= u32::from(fails);
        fails.then_some(Injected::Refused(ENOMEM))
    });
    run(kernel, |outside| async move {
        outside.tell(cluster()).await;
        assert_eq!(outside.ask().await.state, State::Degraded);
        let snapshot = outside.until(State::Converged).await;
        assert_eq!(snapshot.reasons, Vec::<String>::new());
        assert!(snapshot.last_pass.unwrap().operations > 0);
    });
}

#[test]
fn a_failed_change_is_named_and_made_up_for() {
    let mut kernel = FakeKernel::default();
    let mut failures = 1;
    kernel.fail_when(move |operation| {
        let fails = failures > 0 && matches!(operation, Operation::Ipvs(_));
        failures -= u32::from(fails);
        fails.then_some(Injected::Refused(ENOMEM))
    });
    run(kernel, |outside| async move {
        outside.tell(cluster()).await;
        let snapshot = outside.ask().await;
        assert_eq!(snapshot.state, State::Degraded);
        assert_eq!(snapshot.last_pass.unwrap().failed, snapshot.reasons.len());
        assert!(!snapshot.reasons.is_empty());
        let snapshot = outside.until(State::Converged).await;
        assert_eq!(snapshot.last_pass.unwrap().failed, 0);
    });
}

#[test]
fn a_change_that_changes_nothing_is_no_pass() {
    let once = run(FakeKernel::default(), |outside| async move {
        outside.tell(cluster()).await;
        assert_eq!(outside.ask().await.state, State::Converged);
    });
    let twice = run(FakeKernel::default(), |outside| async move {
        outside.tell(cluster()).await;
        let before = outside.ask().await.last_pass;
        outside.tell(cluster()).await;
        let after = outside.ask().await;
        assert_eq!(after.last_pass, before);
        assert_eq!(after.state, State::Converged);
    });
    assert_eq!(twice, once);
}

/// Service `number` at an address of its own, and a slice with these endpoints. It is UDP, so that nothing drains: the loop
/// looks at what drains once a second, and the counts would depend on the time.
fn numbered(number: u32, endpoints: &[u8]) -> (Value, Value) {
    let [_, high, middle, low] = number.to_be_bytes();
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("s{number}")},
        "spec": {"clusterIPs": [format!("10.{high}.{middle}.{low}")], "ports": [{"port": 80, "protocol": "UDP"}]},
    });
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|endpoint| json!({"addresses": [format!("198.51.100.{endpoint}")]}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{number}-1"),
            "labels": {"kubernetes.io/service-name": format!("s{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "UDP"}],
        "endpoints": endpoints,
    });
    (service, slice)
}

fn slice_event(slice: &Value) -> Event {
    Event::EndpointSlices(Change::Upsert(
        parse::endpoint_slice(slice, "a test").unwrap(),
    ))
}

/// What a full start, a start on what it left, and single changes then ask the kernel to do, with this many Services of five
/// endpoints.
fn costs(services: u32) -> Vec<(&'static str, usize)> {
    let (all, slices): (Vec<_>, Vec<_>) = (1..=services)
        .map(|number| numbered(number, &[1, 2, 3, 4, 5]))
        .unzip();
    let whole = vec![
        Event::Services(Change::Replaced(
            all.iter()
                .map(|one| parse::service(one, "a test").unwrap())
                .collect(),
        )),
        Event::EndpointSlices(Change::Replaced(
            slices
                .iter()
                .map(|one| parse::endpoint_slice(one, "a test").unwrap())
                .collect(),
        )),
        Event::Endpoints(Change::Replaced(Vec::new())),
        Event::Nodes(Change::Replaced(Vec::new())),
    ];
    let mut kernel = FakeKernel::default();
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&writes);
    kernel.fail_when(move |operation| {
        if matches!(
            operation,
            Operation::Ipvs(_) | Operation::Address(_) | Operation::ChangeLink
        ) {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        None
    });
    let (new_service, new_slice) = numbered(services + 1, &[1, 2, 3, 4, 5]);
    let mut found = Vec::new();
    let noted = &mut found;
    run(kernel, |outside| async move {
        let cost = async |events: Vec<Event>| {
            let before = writes.load(Ordering::SeqCst);
            outside.tell(events).await;
            assert_eq!(outside.ask().await.state, State::Converged);
            writes.load(Ordering::SeqCst) - before
        };
        let start = cost(whole.clone()).await;
        assert_eq!(start, 2 + 2 + usize::try_from(services).unwrap() * 7);
        noted.push(("the same cluster told again", cost(whole).await));
        let changed = numbered(7, &[1, 2, 3, 4, 6]).1;
        noted.push((
            "an endpoint replaced",
            cost(vec![slice_event(&changed)]).await,
        ));
        let added = vec![
            Event::Services(Change::Upsert(
                parse::service(&new_service, "a test").unwrap(),
            )),
            slice_event(&new_slice),
        ];
        noted.push(("a Service added", cost(added).await));
        let name = crate::model::ObjectName::new("default", &format!("s{}", services + 1));
        noted.push((
            "a Service removed",
            cost(vec![Event::Services(Change::Remove(name))]).await,
        ));
    });
    found
}

#[test]
fn a_change_costs_what_changed_however_large_the_cluster() {
    let expected = [
        ("the same cluster told again", 0),
        // The new one is created, the old one deleted.
        ("an endpoint replaced", 2),
        // The virtual server, its five real servers, its address.
        ("a Service added", 7),
        // The virtual server with its real servers, and its address.
        ("a Service removed", 2),
    ];
    for services in [1_000, 10_000] {
        assert_eq!(costs(services), expected, "{services} Services");
    }
}

/// Several Services, told at once.
fn several(services: u32) -> Vec<Event> {
    let (all, slices): (Vec<_>, Vec<_>) = (1..=services)
        .map(|number| numbered(number, &[1, 2]))
        .unzip();
    let read = |one| parse::service(one, "a test").unwrap();
    let read_slice = |one| parse::endpoint_slice(one, "a test").unwrap();
    vec![
        Event::Services(Change::Replaced(all.iter().map(read).collect())),
        Event::EndpointSlices(Change::Replaced(slices.iter().map(read_slice).collect())),
        Event::Endpoints(Change::Replaced(Vec::new())),
        Event::Nodes(Change::Replaced(Vec::new())),
    ]
}

/// Whatever exchange fails as a whole, and however: when weir says it has converged, everything is there.
#[test]
fn a_failed_exchange_leaves_nothing_undone_behind_converged() {
    type Matches = fn(&Operation) -> bool;
    let exchanges: [Matches; 5] = [
        |operation| matches!(operation, Operation::Ipvs(_)),
        |operation| matches!(operation, Operation::Address(_)),
        |operation| matches!(operation, Operation::ReadLink),
        |operation| matches!(operation, Operation::ReadAddresses),
        |operation| matches!(operation, Operation::ChangeLink),
    ];
    for (number, matches) in exchanges.into_iter().enumerate() {
        for injected in [
            Injected::Refused(ENOMEM),
            Injected::NotSent,
            Injected::LostBefore,
            Injected::LostAfter,
        ] {
            for skipped in 0..3 {
                let mut kernel = FakeKernel::default();
                let mut seen = 0;
                kernel.fail_when(move |operation| {
                    seen += u32::from(matches(operation));
                    (matches(operation) && seen == skipped + 1).then_some(injected)
                });
                let (_, held) = run_and_look(kernel, |outside| async move {
                    outside.tell(several(5)).await;
                    outside.until(State::Converged).await;
                });
                let case = format!("exchange {number}, {injected:?}, after {skipped}");
                assert_eq!(held, (7, 5), "{case}");
            }
        }
    }
}

#[test]
fn a_device_that_cannot_be_made_is_degraded_and_asked_for_with_backoff() {
    let mut kernel = FakeKernel::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    kernel.fail_when(move |operation| {
        let fails = matches!(operation, Operation::ChangeLink);
        counted.fetch_add(usize::from(fails), Ordering::SeqCst);
        fails.then_some(Injected::Refused(EPERM))
    });
    run(kernel, |outside| async move {
        // Nothing to bind: the device alone is missing.
        outside.tell(several(0)).await;
        for _ in 0..5 {
            assert_eq!(outside.ask().await.state, State::Degraded);
            sleep(Duration::from_millis(100)).await;
        }
        assert!(
            asked.load(Ordering::SeqCst) <= 3,
            "it is asked for again and again"
        );
    });
}
