use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::model::{EndpointSlice, Endpoints, Node, Service};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";

fn node(name: &str) -> String {
    format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"Node\", \"metadata\": {{\"name\": \"{name}\"}}}}\n"
    )
}

/// What the five events of a read hold.
#[derive(Debug)]
struct Read {
    services: Vec<Parsed<Service>>,
    slices: Vec<Parsed<EndpointSlice>>,
    endpoints: Vec<Parsed<Endpoints>>,
    nodes: Vec<Parsed<Node>>,
    problems: Problems,
}

impl Read {
    fn of(events: Vec<Event>) -> Self {
        match <[Event; 5]>::try_from(events).unwrap() {
            [
                Event::Services(Change::Replaced(services)),
                Event::EndpointSlices(Change::Replaced(slices)),
                Event::Endpoints(Change::Replaced(endpoints)),
                Event::Nodes(Change::Replaced(nodes)),
                Event::Source(problems),
            ] => Self {
                services,
                slices,
                endpoints,
                nodes,
                problems,
            },
            other => panic!("{other:?}"),
        }
    }

    fn nodes(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.name.to_string())
            .collect()
    }

    /// Findings without the directory of this test.
    fn findings(&self, directory: &Path) -> Vec<String> {
        let lines = self.problems.findings.iter().map(ToString::to_string);
        lines.map(|line| strip(&line, directory)).collect()
    }

    fn notes(&self, directory: &Path) -> Vec<String> {
        let lines = self.problems.notes.iter().map(ToString::to_string);
        lines.map(|line| strip(&line, directory)).collect()
    }
}

fn failure(error: &ManifestError, directory: &Path) -> String {
    strip(
        &format!("{}: {}", error.place, error.problem.chain()),
        directory,
    )
}

fn strip(text: &str, directory: &Path) -> String {
    text.replace(&format!("{}/", directory.display()), "")
        .replace(&directory.display().to_string(), "DIR")
}

fn manifests<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Manifests {
    Manifests::new(paths.into_iter().map(|p| p.as_ref().to_owned()).collect())
}

fn load_one(name: &str, content: impl AsRef<[u8]>) -> Result<Read, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    manifests([path])
        .load()
        .map(Read::of)
        .map_err(|error| failure(&error, directory.path()))
}

#[test]
fn reads_yaml_and_json_of_one_or_more_documents() {
    let list = format!(
        "{{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{}, {}]}}",
        node("a"),
        node("b")
    );
    let yaml = "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n";
    for (name, content, expected) in [
        ("a.yaml", yaml.to_owned(), vec!["a"]),
        ("a.yml", format!("\u{feff}# comment\n---\n# nothing\n---\n{yaml}---\n---\n{}", yaml.replace("name: a", "name: b")), vec!["a", "b"]),
        ("a.json", node("a"), vec!["a"]),
        ("a.json", format!("\u{feff}{}{}null", node("a"), node("b")), vec!["a", "b"]),
        ("a.json", list.clone(), vec!["a", "b"]),
        // JSON in a file that does not say so, and YAML that looks like JSON.
        ("a.yaml", format!("{}{}", node("a"), node("b")), vec!["a", "b"]),
        ("a", format!("\n {list}"), vec!["a", "b"]),
        ("a", yaml.to_owned(), vec!["a"]),
        ("a.yaml", "{apiVersion: v1, kind: Node, metadata: {name: a}} # comment\n".to_owned(), vec!["a"]),
        ("a", "{apiVersion: v1, kind: Node, metadata: {name: a}}\n".to_owned(), vec!["a"]),
        ("a.yaml", format!("--- {}--- {}", node("a"), node("b")), vec!["a", "b"]),
        // Anchors and merges.
        ("a.yaml", "apiVersion: v1\nkind: List\nitems:\n- &n {apiVersion: v1, kind: Node, metadata: {name: a}}\n- <<: *n\n  metadata: {name: b}\n".to_owned(), vec!["a", "b"]),
        ("a.yaml", "# only a comment\n".to_owned(), vec![]),
        ("a.yaml", "apiVersion: v1\nkind: List\nitems: []\n".to_owned(), vec![]),
    ] {
        let read = load_one(name, &content).unwrap();
        assert_eq!(read.nodes(), expected, "{name}: {content}");
        assert!(read.problems.is_empty(), "{name}: {content}: {:?}", read.problems);
    }
}

#[test]
fn a_file_that_is_no_manifest_is_a_failed_read() {
    for (name, content, expected) in [
        (
            "a.yaml",
            "apiVersion: v1\nkind: Service\n metadata:\n",
            "a.yaml: not YAML: mapping values are not allowed in this context at line 3, column 10",
        ),
        (
            "a.yaml",
            "apiVersion: v1\nkind: Node\nkind: Node\n",
            "a.yaml: not YAML: duplicate mapping key `kind` is not allowed here at line 3, column 1",
        ),
        (
            "a.yaml",
            "a: 1\n---\nb: 'x\n",
            "a.yaml: not YAML: unclosed quote at line 3, column 4",
        ),
        (
            "a.yaml",
            "{a: 1\n",
            "a.yaml: not YAML: unclosed bracket '{' at line 1, column 1",
        ),
        (
            "a.json",
            "{\"a\": 1,\n \"b\" 2}",
            "a.json: not JSON: expected `:` at line 2 column 6",
        ),
        (
            "a.json",
            "{a: 1}",
            "a.json: not JSON: key must be a string at line 1 column 2",
        ),
        (
            "a",
            "{\"a\": 1}\n{\"b\": ",
            "a: not JSON: EOF while parsing a value at line 2 column 6",
        ),
        (
            "a.yaml",
            "just some text\n",
            "a.yaml: document 1 (line 1): text, not an object with apiVersion and kind; is this a manifest?",
        ),
        (
            "a.yaml",
            "a: 1\n---\n- 1\n",
            "a.yaml: document 2 (line 3): a list, not an object with apiVersion and kind; is this a manifest?",
        ),
        (
            "a.json",
            "[{}]",
            "a.json: document 1: a list, not an object with apiVersion and kind; is this a manifest?",
        ),
        (
            "a.yaml",
            " \n\n",
            "a.yaml: the file is empty; if there are to be no objects, write `apiVersion: v1`, `kind: List`, `items: []`",
        ),
    ] {
        assert_eq!(load_one(name, content).unwrap_err(), expected, "{content}");
    }
    assert_eq!(
        load_one("a.yaml", b"a: 1\nb: \xff\n").unwrap_err(),
        "a.yaml: not UTF-8 in line 2: invalid utf-8 sequence of 1 bytes from index 8"
    );
    let nested = "[".repeat(100_000);
    assert!(load_one("a.yaml", &nested).is_err());
    assert!(load_one("a.json", &nested).is_err());
}

#[test]
fn a_path_without_manifests_is_a_failed_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let error = |path: &Path| failure(&manifests([path]).load().unwrap_err(), directory.path());
    assert_eq!(
        error(path),
        "DIR: the directory holds no *.yaml, *.yml or *.json; put manifests there (subdirectories are not read) or name a file"
    );
    assert_eq!(
        error(&path.join("gone.yaml")),
        "gone.yaml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn reads_a_directory_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (name, content) in [
        ("20.yaml", node("c")),
        ("10.yml", node("b")),
        ("05.json", node("a")),
        (".hidden.yaml", "{".to_owned()),
        ("readme.txt", "{".to_owned()),
    ] {
        fs::write(path.join(name), content).unwrap();
    }
    fs::create_dir(path.join("00.yaml")).unwrap();
    let read = Read::of(manifests([path]).load().unwrap());
    assert_eq!(read.nodes(), ["a", "b", "c"]);
    assert!(read.problems.is_empty());
}

#[test]
fn the_first_of_a_name_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (
        directory.path().join("z.yaml"),
        directory.path().join("a.yaml"),
    );
    fs::write(&first, SERVICE).unwrap();
    let other = SERVICE.replace("10.96.0.1", "10.96.0.2");
    let elsewhere = SERVICE.replace("{name: web}", "{name: web, namespace: shop}");
    fs::write(&second, format!("{other}---\n{elsewhere}---\n{other}")).unwrap();
    let read = Read::of(manifests([&first, &second]).load().unwrap());
    let addresses: Vec<_> = read
        .services
        .iter()
        .map(|service| {
            (
                service.name.to_string(),
                service.value.as_ref().unwrap().cluster_ips[0].to_string(),
            )
        })
        .collect();
    assert_eq!(
        addresses,
        [
            ("default/web".to_owned(), "10.96.0.1".to_owned()),
            ("shop/web".to_owned(), "10.96.0.1".to_owned())
        ]
    );
    assert_eq!(
        read.findings(directory.path()),
        [
            "Service default/web: stands in z.yaml: document 1 (line 1) and again in a.yaml: document 1 (line 1); only the first is used",
            "Service default/web: stands in z.yaml: document 1 (line 1) and again in a.yaml: document 3 (line 11); only the first is used",
        ]
    );
}

#[test]
fn other_kinds_are_named_once_and_faults_cost_their_part() {
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}}";
    let content = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {pod}\n- {pod}\n- {{apiVersion: v1, kind: Service}}\n- {}---\n{SERVICE}---\napiVersion: apps/v1\nkind: Deployment\n",
        node("a")
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.yaml");
    fs::write(&path, content).unwrap();
    let read = Read::of(manifests([path]).load().unwrap());
    assert_eq!(read.nodes(), ["a"]);
    assert_eq!(read.services.len(), 1);
    assert_eq!(
        read.findings(directory.path()),
        [
            "a.yaml: document 1 (line 1), item 3: metadata.name: this Service has no name; nothing of it is used"
        ]
    );
    assert_eq!(
        read.notes(directory.path()),
        [
            "a.yaml: document 3 (line 14): kind apps/v1 Deployment is not read: skipped (1 object)",
            "a.yaml: document 1 (line 1), item 1: kind v1 Pod is not read: skipped (2 objects, this is the first)",
        ]
    );
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  labels: {kubernetes.io/service-name: web}\naddressType: IPv4\nports: [{name: no, port: 80}, {name: a, port: '80'}, {name: b, port: .inf}, {name: c, port: 0x50}]\nendpoints:\n- {addresses: [10.0.0.1], conditions: {ready: yes}}\n";
    let read = load_one("a.yaml", slice).unwrap();
    let parsed = &read.slices[0];
    let slice = parsed.value.as_ref().unwrap();
    assert!(slice.endpoints[0].conditions.ready);
    assert_eq!(slice.ports.len(), 1);
    let findings: Vec<String> = parsed
        .problems
        .findings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        findings,
        [
            "EndpointSlice default/web-1: ports[0].name: false is not text; this port is not used",
            "EndpointSlice default/web-1: ports[1].port: \"80\" is text, not a number; this port is not used",
            "EndpointSlice default/web-1: ports[2].port: \".inf\" is text, not a number; this port is not used",
        ]
    );
}

#[test]
fn a_bad_file_keeps_what_was_last_read_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        directory.path().join("a.yaml"),
        directory.path().join("b.yaml"),
    );
    fs::write(&a, node("a")).unwrap();
    fs::write(&b, node("b")).unwrap();
    let mut manifests = manifests([&a, &b]);
    manifests.load().unwrap();
    for (content, problem) in [
        (
            Some("{"),
            "b.yaml: not YAML: unclosed bracket '{' at line 1, column 1; what was last read of the file stays in use",
        ),
        (
            Some(""),
            "b.yaml: the file is empty; if there are to be no objects, write `apiVersion: v1`, `kind: List`, `items: []`; what was last read of the file stays in use",
        ),
        (
            None,
            "b.yaml: cannot be read: No such file or directory (os error 2); what was last read of the file stays in use",
        ),
    ] {
        match content {
            Some(content) => fs::write(&b, content).unwrap(),
            None => fs::remove_file(&b).unwrap(),
        }
        fs::write(&a, node("new")).unwrap();
        let read = Read::of(manifests.reload());
        assert_eq!(read.nodes(), ["new", "b"]);
        assert_eq!(read.findings(directory.path()), [problem]);
        assert!(!manifests.changed(), "a bad file is not read over and over");
    }
    fs::write(&b, node("c")).unwrap();
    let read = Read::of(manifests.reload());
    assert_eq!(read.nodes(), ["new", "c"]);
    assert!(read.problems.is_empty());
}

#[test]
fn a_failed_load_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        directory.path().join("a.yaml"),
        directory.path().join("b.yaml"),
    );
    fs::write(&a, node("a")).unwrap();
    let mut manifests = manifests([&a, &b]);
    assert!(manifests.load().is_err());
    let read = Read::of(manifests.reload());
    assert_eq!(read.nodes(), ["a"]);
    assert_eq!(
        read.findings(directory.path()),
        [
            "b.yaml: cannot be read: No such file or directory (os error 2); nothing of the file is used"
        ]
    );
}

#[test]
fn a_file_that_left_its_directory_is_deleted_but_an_empty_directory_is_an_accident() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("a.yaml"), node("a")).unwrap();
    fs::write(path.join("b.yaml"), node("b")).unwrap();
    let mut manifests = manifests([path]);
    manifests.load().unwrap();

    fs::write(path.join("c.yaml"), "{").unwrap();
    fs::write(path.join("d.yaml"), node("d")).unwrap();
    let read = Read::of(manifests.reload());
    assert_eq!(read.nodes(), ["a", "b", "d"]);
    assert_eq!(
        read.findings(path),
        ["c.yaml: not YAML: unclosed bracket '{' at line 1, column 1; nothing of the file is used"]
    );

    for gone in ["b.yaml", "c.yaml", "d.yaml"] {
        fs::remove_file(path.join(gone)).unwrap();
    }
    let read = Read::of(manifests.reload());
    assert_eq!(read.nodes(), ["a"]);
    assert!(read.problems.is_empty());

    fs::remove_file(path.join("a.yaml")).unwrap();
    let read = Read::of(manifests.reload());
    assert_eq!(read.nodes(), ["a"]);
    assert_eq!(
        read.findings(path),
        [
            "DIR: the directory holds no *.yaml, *.yml or *.json; put manifests there (subdirectories are not read) or name a file; what was last read of the file stays in use"
        ]
    );
}

#[test]
fn sees_what_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d");
    fs::create_dir(&path).unwrap();
    let file = directory.path().join("f.yaml");
    fs::write(&file, node("f")).unwrap();
    fs::write(path.join("a.yaml"), node("a")).unwrap();
    let mut manifests = manifests([&path, &file]);
    assert!(manifests.changed(), "nothing was read yet");
    manifests.load().unwrap();
    assert!(!manifests.changed());
    let changes: [(&str, &dyn Fn() -> std::io::Result<()>); 6] = [
        ("a file written", &|| fs::write(&file, node("longer"))),
        ("a file added", &|| {
            fs::write(path.join("b.yaml"), node("b"))
        }),
        ("a file removed", &|| fs::remove_file(path.join("b.yaml"))),
        ("a file replaced by one that looks alike", &|| {
            let new = directory.path().join("new");
            fs::write(&new, node("b"))?;
            fs::rename(new, path.join("a.yaml"))
        }),
        ("the directory gone", &|| {
            fs::rename(&path, directory.path().join("moved"))
        }),
        ("the directory back", &|| {
            fs::rename(directory.path().join("moved"), &path)
        }),
    ];
    for (what, change) in changes {
        change().unwrap();
        assert!(manifests.changed(), "{what}");
        manifests.reload();
        assert!(!manifests.changed(), "{what}");
    }
}

#[test]
fn follows_the_links_of_a_mounted_configmap() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (version, name) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(path.join(version)).unwrap();
        fs::write(path.join(version).join("a.yaml"), node(name)).unwrap();
    }
    symlink("..1", path.join("..data")).unwrap();
    symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
    let mut manifests = manifests([path]);
    assert_eq!(Read::of(manifests.load().unwrap()).nodes(), ["old"]);

    symlink("..2", path.join("..data_tmp")).unwrap();
    fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    assert!(manifests.changed());
    assert_eq!(Read::of(manifests.reload()).nodes(), ["new"]);
}

#[test]
fn a_pipe_is_read_once() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, node("a").as_bytes()).unwrap();
    drop(writer);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let mut manifests = manifests([path]);
    assert_eq!(Read::of(manifests.load().unwrap()).nodes(), ["a"]);
    assert!(!manifests.changed());
    assert_eq!(Read::of(manifests.reload()).nodes(), ["a"]);
    assert_eq!(Read::of(manifests.load().unwrap()).nodes(), ["a"]);
}

fn tutorial() -> (PathBuf, Read) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tutorial");
    let read = Read::of(manifests([&directory]).load().unwrap());
    (directory, read)
}

#[test]
fn reads_the_services_of_the_tutorial() {
    let (directory, read) = tutorial();
    assert!(read.problems.findings.is_empty(), "{:?}", read.problems);
    assert_eq!(
        read.notes(&directory),
        [
            "nginx-clusterip.yaml: document 1 (line 2): kind apps/v1 Deployment is not read: skipped (1 object)"
        ]
    );
    let services: Vec<String> = read
        .services
        .iter()
        .map(|service| service.name.to_string())
        .collect();
    assert_eq!(
        services,
        [
            "default/mysql",
            "default/kubernetes",
            "nginx/nginx-svc",
            "default/client-svc",
            "default/nginx",
            "default/nginx-nodeport"
        ]
    );
    let problems = read.services.iter().map(|service| &service.problems);
    let (findings, notes): (Vec<_>, Vec<_>) = problems
        .map(|problems| (problems.findings.as_slice(), problems.notes.as_slice()))
        .unzip();
    assert!(findings.concat().is_empty());
    assert_eq!(
        notes
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        [
            "Service default/client-svc: DNS only (externalName nginx-svc.nginx.svc.cluster.local): nothing to program",
            "Service default/nginx-nodeport: spec.ports[].nodePort 30085: not served by this version; the cluster IP is",
        ]
    );
}

#[test]
fn reads_the_endpoints_of_the_tutorial() {
    let (_, read) = tutorial();
    let slices: Vec<(String, usize)> = read
        .slices
        .iter()
        .map(|slice| {
            (
                slice.name.to_string(),
                slice.value.as_ref().unwrap().endpoints.len(),
            )
        })
        .collect();
    assert_eq!(
        slices,
        [
            ("nginx/nginx-svc-klmno".to_owned(), 1),
            ("default/nginx-abcde".to_owned(), 3),
            ("default/nginx-nodeport-fghij".to_owned(), 3)
        ]
    );
    assert!(read.slices.iter().all(|slice| slice.problems.is_empty()));
    let endpoints: Vec<String> = read
        .endpoints
        .iter()
        .map(|endpoints| {
            endpoints.value.as_ref().unwrap().slices[0].endpoints[0]
                .address
                .to_string()
        })
        .collect();
    assert_eq!(endpoints, ["192.168.23.99", "192.168.23.99"]);
    assert_eq!(read.nodes(), ["ubuntu0", "ubuntu1", "ubuntu2"]);
    assert_eq!(
        read.nodes[2].value.as_ref().unwrap().zone.as_deref(),
        Some("zone-b")
    );
}
