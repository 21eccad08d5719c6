//! One program under this deployment's care: started, stopped, frozen, and gone when its parent is gone.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

/// A program with its arguments, its log and, while it runs, its process.
pub struct Process {
    name: String,
    launch: Launch,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

/// What to run and as whom.
#[derive(Clone, Debug)]
pub struct Launch {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// Run as this user when we are root; ignored otherwise.
    pub unprivileged_user: Option<&'static str>,
}

impl Process {
    /// Describes the process; `start` runs it. Its output is appended to `<logs>/<name>.log`.
    pub fn new(name: &str, launch: Launch, logs: &Path) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name: name.to_owned(), launch, log, child: Mutex::new(None) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn start(&self) -> Result<()> {
        let mut child = self.child();
        if let Some(running) = child.as_mut()
            && running.try_wait()?.is_none()
        {
            bail!("{} runs already", self.name);
        }
        let output = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.launch.command();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        *child = Some(spawn(command).with_context(|| format!("starting {}", self.name))?);
        Ok(())
    }

    /// The process id, if it was started and has not been found ended.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// `None` while it runs.
    pub fn exited(&self) -> Result<Option<ExitStatus>> {
        match self.child().as_mut() {
            Some(child) => Ok(child.try_wait()?),
            None => bail!("{} was not started", self.name),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.exited(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        let child = child.as_mut().ok_or_else(|| anyhow!("{} was not started", self.name))?;
        if let Some(status) = child.try_wait()? {
            bail!("{} has ended already ({status})", self.name);
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("not a process id"))?;
        // The child is not reaped while the lock is held, so the id still is its own.
        rustix::process::kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// `SIGKILL`: no chance to say anything to anybody. Returns once the process is gone.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks with `signal`, waits, and kills what is still there at the deadline.
    pub fn stop(&self, signal: Signal, deadline: Duration) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal(signal)?;
        match self.wait_exit(deadline) {
            Ok(_) => Ok(()),
            Err(_) => self.kill(),
        }
    }

    pub fn wait_exit(&self, deadline: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} still runs after {deadline:?}", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last `lines` of what the process said.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to tell anybody here; the parent's death would end it too.
        let _ = self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Launch {
    pub fn new(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            unprivileged_user: None,
        }
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    pub fn unprivileged(mut self, user: &'static str) -> Self {
        self.unprivileged_user = Some(user);
        self
    }

    /// Runs to the end and gives its output; an error shows what it said.
    pub fn run(&self) -> Result<String> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let shown = self.program.display();
        let output = spawn(command).and_then(Child::wait_with_output).with_context(|| format!("running {shown}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{shown} {}: {}\n{}", self.arguments.join(" "), output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The program under `setpriv`, which ends it when our launching thread ends, however that comes about.
    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "SIGKILL"]);
        if let Some(user) = self.unprivileged_user
            && rustix::process::geteuid().is_root()
        {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        command.arg("--").arg(&self.program).args(&self.arguments).envs(self.environment.iter().cloned());
        // A folder that an unprivileged user may stand in, and where a stray core or file does no harm. A group of its
        // own, so that Ctrl-C in a terminal reaches the parent alone, who ends everything in order.
        command.current_dir("/").process_group(0);
        command
    }
}

/// Spawns on one thread that lives as long as this process: the kernel sends the parent-death signal when the
/// *thread* that spawned a child ends, and test threads come and go.
fn spawn(command: Command) -> std::io::Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static LAUNCHER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

    let launcher = LAUNCHER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                // A caller that went away has dropped the receiver; its child is dropped, not left running unseen.
                if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                    let _ = child.kill();
                }
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    let gone = || std::io::Error::other("the launching thread is gone");
    launcher.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// The last `lines` lines of a file, or a note that there is none.
pub fn tail(path: &Path, lines: usize) -> String {
    const WINDOW: u64 = 64 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = fs::metadata(path)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(logs: &Path) -> Process {
        Process::new("sleeper", Launch::new("sh", ["-c", "echo started; exec sleep 600"]), logs)
    }

    #[test]
    fn a_process_is_started_stopped_and_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        for _ in 0..2 {
            process.start().unwrap();
            assert!(process.start().is_err(), "it runs already");
            process.freeze().unwrap();
            process.thaw().unwrap();
            process.stop(Signal::TERM, Duration::from_secs(5)).unwrap();
            assert!(!process.is_running());
        }
    }

    #[test]
    fn a_frozen_process_can_be_killed() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        process.start().unwrap();
        process.freeze().unwrap();
        process.kill().unwrap();
        assert!(!process.is_running());
    }

    #[test]
    fn children_outlive_the_thread_that_asked_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let process = sleeper(folder.path());
        thread::scope(|scope| scope.spawn(|| process.start().unwrap()).join().unwrap());
        assert!(process.wait_exit(Duration::from_millis(200)).is_err(), "{:?}", process.exited());
    }

    /// Run as a process of its own by the test below: starts a child and waits for its own violent end.
    #[test]
    #[ignore = "a part of children_end_with_a_killed_parent"]
    fn parent_to_be_killed() {
        let folder = PathBuf::from(std::env::var_os("HOLDFAST_TEST_FOLDER").expect("set by the other test"));
        let process = sleeper(&folder);
        process.start().unwrap();
        fs::write(folder.join("pid.new"), process.pid().unwrap().to_string()).unwrap();
        fs::rename(folder.join("pid.new"), folder.join("pid")).unwrap();
        thread::sleep(Duration::from_secs(600));
    }

    #[test]
    fn children_end_with_a_killed_parent() {
        let folder = tempfile::tempdir().unwrap();
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process::tests::parent_to_be_killed"])
            .env("HOLDFAST_TEST_FOLDER", folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let await_condition = |what: &str, condition: &dyn Fn() -> bool| {
            let end = Instant::now() + Duration::from_secs(20);
            while !condition() {
                assert!(Instant::now() < end, "{what}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        let pid_file = folder.path().join("pid");
        await_condition("the child was not started", &|| pid_file.exists());
        let proc = PathBuf::from("/proc").join(fs::read_to_string(&pid_file).unwrap());
        assert!(proc.exists());
        parent.kill().unwrap();
        parent.wait().unwrap();
        // Ended, though perhaps not yet reaped by whoever adopts it.
        await_condition("the child outlived its parent", &|| match fs::read_to_string(proc.join("stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        });
    }
}
