//! Each test runs itself again in a process of its own, which confines itself and then tries.

use std::{
    env, fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use holdfast_signer::harden::confine::{ConfineError, ConfinementConfig, Plan};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Runs `body` in a process of its own. `test` is the name of the calling test in this module.
fn in_its_own_process(test: &str, body: impl FnOnce(&Ground)) {
    const FOLDER: &str = "HOLDFAST_TEST_CONFINED";
    if let Some(folder) = env::var_os(FOLDER) {
        return body(&Ground(folder.into()));
    }
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("bounds::{test}"), "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && stdout.contains("1 passed"), "{test}: {}\n{stdout}\n{stderr}", child.status);
}

/// A folder with some folders in it, one file in each.
struct Ground(PathBuf);

impl Ground {
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.0.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), name).unwrap();
        folder
    }
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// A port that is free, to bind again.
fn free_port() -> u16 {
    port_of(&TcpListener::bind("127.0.0.1:0").unwrap())
}

#[test]
fn only_what_the_plan_names_is_open() {
    in_its_own_process("only_what_the_plan_names_is_open", |ground| {
        let [data, config, other] = ["data", "config", "other"].map(|name| ground.folder(name));
        let program = data.join("program");
        fs::copy("/bin/true", &program).unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let (ours, foreign) = (free_port(), free_port());

        let mut plan = Plan::new(&ConfinementConfig::default()).unwrap();
        plan.write.insert(data.clone());
        plan.read_replaceable(&config.join("file"));
        plan.bind_ports.insert(ours);
        let confined = plan.apply().unwrap();
        // Those who are there from the start inherit it all.
        thread::spawn(move || {
            files(&data, &config, &other);
            programs(&program);
            let _listener = TcpListener::bind(("127.0.0.1", ours)).unwrap();
            denied(TcpListener::bind(("127.0.0.1", foreign)));
            denied(TcpStream::connect(elsewhere.local_addr().unwrap()));

            code(true);
            confined.seal().unwrap();
            code(false);
            denied(UdpSocket::bind("127.0.0.1:0"));
            denied(TcpListener::bind(("127.0.0.1", ours)));
            denied(TcpStream::connect(elsewhere.local_addr().unwrap()));
            assert_eq!(netlink().unwrap_err(), rustix::io::Errno::NOSYS);
            // The service manager's socket.
            UnixStream::pair().unwrap();
        })
        .join()
        .unwrap();
        // And so does the one that was there before.
        denied(UdpSocket::bind("127.0.0.1:0"));
    });
}

fn files(data: &Path, config: &Path, other: &Path) {
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "data");
    fs::write(data.join("new"), "1").unwrap();
    fs::rename(data.join("new"), data.join("file")).unwrap();
    fs::create_dir(data.join("folder")).unwrap();
    fs::remove_dir(data.join("folder")).unwrap();
    denied(std::os::unix::net::UnixListener::bind(data.join("socket")));
    std::os::unix::fs::symlink("/", data.join("link")).unwrap_err();

    assert_eq!(fs::read_to_string(config.join("file")).unwrap(), "config");
    denied(fs::write(config.join("file"), "changed"));
    denied(fs::write(config.join("new"), "1"));
    denied(fs::remove_file(config.join("file")));

    denied(fs::read(other.join("file")));
    denied(fs::read_dir(other));
    for path in ["/etc/passwd", "/etc/shadow", "/proc/1/environ", "/proc/kallsyms", "/dev/mem", "/root"] {
        if Path::new(path).exists() {
            denied(fs::File::open(path));
        }
    }
    denied(fs::write("/tmp/holdfast-confinement", "1"));
    // What it is made of stays readable.
    fs::read("/proc/self/status").unwrap();
    fs::read("/etc/ld.so.cache").unwrap();
}

fn programs(copied: &Path) {
    for program in [Path::new("/bin/true"), copied] {
        let refusal = Command::new(program).status().unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unsupported, "{}: {refusal}", program.display());
    }
    let ourselves = rustix::process::getpid();
    // An interface to other processes; it stands for those that safe code cannot call.
    assert_eq!(
        rustix::process::pidfd_open(ourselves, rustix::process::PidfdFlags::empty()).unwrap_err(),
        rustix::io::Errno::NOSYS
    );
    assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
}

/// Whether memory that was written can become code.
fn code(may: bool) {
    let memory = memmap2::MmapMut::map_anon(4096).unwrap();
    assert_eq!(memory.make_exec().is_ok(), may);
}

fn netlink() -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketType, netlink, socket};
    socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::KOBJECT_UEVENT))
}

#[track_caller]
fn denied<T>(result: std::io::Result<T>) {
    match result {
        Ok(_) => panic!("that was not denied"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}"),
    }
}

#[test]
fn a_vendors_library_gets_what_the_configuration_names() {
    in_its_own_process("a_vendors_library_gets_what_the_configuration_names", |ground| {
        let [readable, writable, other] = ["readable", "writable", "other"].map(|name| ground.folder(name));
        let hsm = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = ConfinementConfig {
            read_paths: vec![readable.clone()],
            write_paths: vec![writable.clone()],
            connect_ports: vec![port_of(&hsm)],
            allow_exec: true,
            allow_netlink: true,
            ..ConfinementConfig::default()
        };
        Plan::new(&config).unwrap().apply().unwrap().seal().unwrap();
        fs::read(readable.join("file")).unwrap();
        denied(fs::write(readable.join("file"), "1"));
        fs::write(writable.join("file"), "1").unwrap();
        denied(fs::read(other.join("file")));
        TcpStream::connect(hsm.local_addr().unwrap()).unwrap();
        denied(TcpStream::connect(elsewhere.local_addr().unwrap()));
        UdpSocket::bind("127.0.0.1:0").unwrap();
        netlink().unwrap();
        fs::read("/etc/hosts").unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success());
        // Programs are confined as the signer is.
        let outside = Command::new("/bin/cat").arg(other.join("file")).output().unwrap();
        assert!(!outside.status.success(), "{}", String::from_utf8_lossy(&outside.stdout));
    });
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let missing = PathBuf::from("/nowhere/at/all");
    let config = ConfinementConfig { read_paths: vec![missing.clone()], ..ConfinementConfig::default() };
    assert_eq!(Plan::new(&config).unwrap_err(), ConfineError::Absent(missing));
}

/// A kernel without Landlock, played by a filter that answers as one would.
#[test]
fn a_kernel_that_cannot_is_refused_unless_that_is_configured() {
    in_its_own_process("a_kernel_that_cannot_is_refused_unless_that_is_configured", |ground| {
        let without = [(libc::SYS_landlock_create_ruleset, vec![])].into_iter().collect();
        let action = SeccompAction::Errno(libc::EOPNOTSUPP as u32);
        let arch = env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(without, SeccompAction::Allow, action, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();

        let refusal = Plan::new(&ConfinementConfig::default()).unwrap().apply().err().expect("a refusal").to_string();
        assert!(refusal.contains("Linux 6.7") && refusal.contains("require = false"), "{refusal}");

        let tolerant = ConfinementConfig { require: false, ..ConfinementConfig::default() };
        Plan::new(&tolerant).unwrap().apply().unwrap().seal().unwrap();
        fs::read(ground.folder("other").join("file")).unwrap();
        // What the kernel can do is done.
        denied(UdpSocket::bind("127.0.0.1:0"));
    });
}
