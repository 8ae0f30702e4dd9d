//! What `deploy/` ships, run as far as that goes without a container: the image's tree and its own words for how to run
//! it, the configurations in the manifests, and the times that they give a stop. `deploy/check.sh` holds the files to
//! their schemas.

mod process;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use machinegun::config::{self, Settings};
use process::{Machinegun, configuration, soon};
use rustix::process::geteuid;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

/// Enough to close a store in, beyond what steps and connections may take.
const TO_CLOSE: Duration = Duration::from_secs(10);

/// The least file that leaves all else as it is.
const DEFAULTS: &str =
    "storage: {type: embedded, path: /var/lib/machinegun}\nnamespaces: {ns: {processor: {url: 'http://p/'}}}\n";

/// The image's tree below a folder that anybody may walk through, and what the Dockerfile's last stage says of it.
struct Image {
    /// Held: the folder goes with it.
    _folder: tempfile::TempDir,
    root: PathBuf,
    last_stage: String,
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn documents(text: &str) -> Vec<Value> {
    yaml_serde::Deserializer::from_str(text).map(|it| Value::deserialize(it).expect("YAML")).collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer}"))
}

fn seconds(value: &Value, pointer: &str) -> Duration {
    let seconds = value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {pointer}"));
    Duration::from_secs(seconds)
}

/// A configuration that must be without errors; the environment is the container's.
fn settings(of: &str, text: &str) -> Settings {
    let env = |name: &str| (name == "AWS_REGION").then(|| "eu-central-1".to_owned());
    let (settings, report) = config::parse(text, &env).unwrap_or_else(|errors| panic!("{of}: {errors}"));
    let idle = report.notices.iter().find(|it| it.text.starts_with("is ignored"));
    assert_eq!(idle.map(ToString::to_string), None, "{of} ships a key that does nothing");
    settings
}

/// How long a stop may take by the settings: what the service itself waits for.
fn stop_takes(settings: &Settings) -> Duration {
    let steps = settings.namespaces.iter().map(|it| it.shutdown_timeout.expect("not infinity")).max();
    settings.woody_server.shutdown_timeout.expect("not infinity") + steps.expect("a namespace")
}

// === impl Image ===

impl Image {
    async fn lay_out() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("our own folder");
        let root = folder.path().join("image");
        let mut script = Command::new(path("deploy/image-layout.sh"));
        script.arg(env!("CARGO_BIN_EXE_machinegun")).arg(&root);
        let output = soon("the layout", script.output()).await.expect("bash runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let dockerfile = read("deploy/Dockerfile");
        let last_stage = dockerfile.rsplit_once("\nFROM ").expect("a stage").1.to_owned();
        Self { _folder: folder, root, last_stage }
    }

    /// Where a path of the image is.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.strip_prefix('/').expect("an absolute path"))
    }

    fn says(&self, instruction: &str) -> &str {
        let line = self.last_stage.lines().find_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("the last stage has no {instruction}"))
    }

    /// An instruction in its exec form.
    fn words(&self, instruction: &str) -> Vec<String> {
        serde_json::from_str(self.says(instruction)).expect("the exec form: no shell between")
    }

    fn user(&self) -> (u32, u32) {
        let (user, group) = self.says("USER").split_once(':').expect("user and group");
        (user.parse().expect("a number"), group.parse().expect("a number"))
    }

    /// A program of the image, run as the image says. Who is not root can't become another.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.at(program));
        command.current_dir(self.at(self.says("WORKDIR"))).env_clear().stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if geteuid().is_root() {
            let (user, group) = self.user();
            command.uid(user).gid(group);
        }
        command
    }

    /// Asks by the image's own health check: whether all is well, and what was said.
    async fn health(&self, service: &Machinegun, path: &str) -> (bool, String) {
        let line = self.says("HEALTHCHECK");
        let (_, program) = line.split_once(" CMD ").expect("a command");
        let [program]: [String; 1] = serde_json::from_str(program).expect("the exec form, and no arguments");
        let mut command = self.command(&program);
        command.env("PATH", "/usr/bin:/bin").env("HEALTH_PORT", service.address.port().to_string());
        let output = soon("the health check", command.env("HEALTH_PATH", path).output()).await.expect("it runs");
        (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8"))
    }
}

/// Every path that a probe of the manifests asks.
fn probes() -> Vec<String> {
    let mut paths = Vec::new();
    for file in ["deploy/kubernetes/embedded.yaml", "deploy/kubernetes/dynamodb.yaml"] {
        for document in documents(&read(file)) {
            let Some(container) = document.pointer("/spec/template/spec/containers/0") else { continue };
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                paths.push(text(container, &format!("/{probe}/httpGet/path")).to_owned());
                assert_eq!(text(container, &format!("/{probe}/httpGet/port")), text(container, "/ports/0/name"));
            }
        }
    }
    assert_eq!(paths.len(), 6, "both manifests run a container with three probes");
    paths
}

#[tokio::test]
async fn the_images_tree_runs_as_its_user_answers_its_probes_and_stops_at_its_signal() {
    let image = Image::lay_out().await;
    let (root, (user, _)) = (geteuid().is_root(), image.user());
    if !root {
        eprintln!("not root: the image runs as uid {} here, not as {user}", geteuid().as_raw());
    }
    assert_eq!((user, image.says("EXPOSE")), (1001, "8022"));
    // What runs can't be changed by what runs it; its folders can.
    for (path, writable) in
        [("/opt/machinegun/bin/machinegun", false), ("/opt/machinegun/etc", false), ("/var/lib/machinegun", true)]
    {
        let metadata = std::fs::metadata(image.at(path)).expect(path);
        assert!(!root || (metadata.uid() == user) == writable, "{path} belongs to {}", metadata.uid());
        assert_eq!(metadata.mode() & 0o022, 0, "{path} may be written by others");
    }

    // As a mount would put it there. No processor is asked.
    let text = configuration(&image.at("/var/lib/machinegun"), "127.0.0.1:1".parse().expect("an address"));
    let file = image.at("/opt/machinegun/etc/config.yaml");
    std::fs::write(&file, text).expect("the configuration is written");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("our own file");
    let [program] = <[String; 1]>::try_from(image.words("ENTRYPOINT")).expect("the program alone");
    let mut command = image.command(&program);
    let child = command.args(image.words("CMD")).spawn().expect("the image's program runs");
    let service = Machinegun::up(child).await;

    let status = format!("/proc/{}/status", service.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("Linux");
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("its user");
    let runs_as = if root { user } else { geteuid().as_raw() };
    assert!(uids.split_whitespace().all(|uid| uid == runs_as.to_string()), "{uids}");

    for path in ["/health".to_owned()].into_iter().chain(probes()) {
        let (well, said) = image.health(&service, &path).await;
        assert!(well && said.starts_with("200 "), "{path}: {said}");
    }
    let (well, said) = image.health(&service, "/no/such/path").await;
    assert!(!well, "a health check that is never unhappy: {said}");

    assert_eq!(image.says("STOPSIGNAL"), "SIGTERM");
    service.terminate();
    let ended = service.ended().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(image.at("/var/lib/machinegun/data").is_dir(), "the store is where the volume is");
}

#[test]
fn the_manifests_configurations_are_without_errors_and_a_stop_fits_their_grace() {
    for file in ["deploy/kubernetes/embedded.yaml", "deploy/kubernetes/dynamodb.yaml"] {
        let documents = documents(&read(file));
        let config = documents.iter().find(|it| it["kind"] == "ConfigMap").expect("a ConfigMap");
        let settings = settings(file, text(config, "/data/config.yaml"));
        let pod = documents.iter().find_map(|it| it.pointer("/spec/template/spec")).expect("a pod");
        let container = &pod["containers"][0];
        assert_eq!(container["ports"][0]["containerPort"], settings.woody_server.port, "{file}");
        let takes = seconds(container, "/lifecycle/preStop/sleep/seconds") + stop_takes(&settings) + TO_CLOSE;
        assert!(seconds(pod, "/terminationGracePeriodSeconds") >= takes, "{file}: a stop may take {takes:?}");
        assert_eq!(pod["securityContext"]["runAsUser"], 1001, "{file}: the image's user");
    }
}

/// The API has no login: who may reach its port is all that guards it.
#[test]
fn the_manifests_let_nobody_in_but_those_whom_they_name() {
    for (file, instances) in [("deploy/kubernetes/embedded.yaml", 1), ("deploy/kubernetes/dynamodb.yaml", 3)] {
        let documents = documents(&read(file));
        let policy = documents.iter().find(|it| it["kind"] == "NetworkPolicy").expect("a NetworkPolicy");
        let workload = documents.iter().find(|it| it.pointer("/spec/template/spec").is_some()).expect("a workload");
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(workload["spec"]["replicas"], instances, "{file}");
        assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels, "{file}: it is about the pods");
        assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress"]), "{file}");
        let port = &workload["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"];
        let mut admitted = Vec::new();
        for rule in policy["spec"]["ingress"].as_array().expect("rules") {
            let ports = rule["ports"].as_array().expect("named ports: without them it is all of them");
            assert!(ports.iter().all(|it| it["port"] == *port && it["protocol"] == "TCP"), "{file}: {rule}");
            admitted.extend(rule["from"].as_array().expect("named peers: without them it is everybody"));
        }
        for peer in &admitted {
            let selectors = ["podSelector", "namespaceSelector"].map(|selector| &peer[selector]["matchLabels"]);
            assert!(selectors.iter().any(|it| it.is_object()), "{file} lets in anybody: {peer}");
        }
        // One instance asks nobody; several pass requests on to each other.
        let each_other = admitted.iter().any(|it| it["podSelector"]["matchLabels"] == *labels);
        assert_eq!(each_other, instances > 1, "{file}");
    }
}

/// A release changes them all, or the image is built from one and named after another.
#[test]
fn every_version_is_this_ones() {
    let (version, rust) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_RUST_VERSION"));
    assert!(read("deploy/Dockerfile").contains(&format!("FROM rust:{rust}-")), "the image is built by another Rust");
    for file in ["deploy/compose.yaml", "deploy/kubernetes/embedded.yaml", "deploy/kubernetes/dynamodb.yaml"] {
        let text = read(file);
        let images: Vec<&str> =
            text.lines().filter_map(|line| line.trim().strip_prefix("image: machinegun:")).collect();
        assert_eq!(images, [version], "{file}");
    }
}

#[test]
fn composes_configuration_is_without_errors_and_everything_it_mounts_is_there() {
    let compose = documents(&read("deploy/compose.yaml")).remove(0);
    let service = &compose["services"]["machinegun"];
    let settings = settings("deploy/compose/machinegun.yaml", &read("deploy/compose/machinegun.yaml"));
    let takes = stop_takes(&settings) + TO_CLOSE;
    let grace = text(service, "/stop_grace_period").strip_suffix('s').expect("seconds").parse().expect("a number");
    assert!(Duration::from_secs(grace) >= takes, "a stop may take {takes:?}");
    let services = compose["services"].as_object().expect("services");
    let mounts = services.values().flat_map(|it| it["volumes"].as_array().into_iter().flatten());
    let mut count = 0;
    for mount in mounts {
        let source = mount.as_str().and_then(|it| it.split(':').next()).expect("SOURCE:TARGET");
        assert!(path("deploy").join(source).exists(), "deploy/compose.yaml mounts {source}, which is not there");
        count += 1;
    }
    assert!(count >= 4, "{count} mounts");
}

#[test]
fn the_units_times_and_folders_are_those_of_the_defaults() {
    let unit = read("deploy/machinegun.service");
    let says = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    let settings = settings("the defaults", DEFAULTS);
    let stop: u64 = says("TimeoutStopSec").strip_suffix('s').expect("seconds").parse().expect("a number");
    assert!(Duration::from_secs(stop) >= stop_takes(&settings) + TO_CLOSE);
    let config::StorageSettings::Embedded(storage) = &settings.storage else { panic!("embedded by default") };
    assert_eq!(storage.path, Path::new("/var/lib").join(says("StateDirectory")));
    assert_eq!(settings.logging.root, Path::new("/var/log").join(says("LogsDirectory")));
}

#[test]
fn logrotate_moves_the_log_of_the_defaults_and_the_unit_opens_it_again() {
    let settings = settings("the defaults", DEFAULTS);
    let log = settings.logging.root.join(&settings.logging.json_log);
    let rotation = read("deploy/machinegun.logrotate");
    assert!(rotation.lines().any(|line| line == format!("{} {{", log.display())), "{} is not moved", log.display());
    assert!(rotation.contains("systemctl reload machinegun\n"));
    // What a hangup does is shown by tests/logs.rs.
    assert!(read("deploy/machinegun.service").contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}
