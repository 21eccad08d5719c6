//! The file system and the network, as far as the signer needs them (Landlock).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use super::confine::{ConfineError, Plan};

/// The newest rules that are used, all of them in Linux 6.7: TCP ports came last.
const NEEDED: ABI = ABI::V4;

/// Restricts this thread and those that it will start. Where the kernel cannot do all of it that is an error, and it does
/// what it can when the plan tolerates that.
pub(super) fn apply(plan: &Plan) -> Result<(), ConfineError> {
    restrict(plan, CompatLevel::HardRequirement).map_err(|error| {
        // It has failed already; there is no more to say about a second failure.
        let _ = if plan.require { Ok(()) } else { restrict(plan, CompatLevel::BestEffort) };
        ConfineError::Landlock(error.to_string())
    })
}

fn restrict(plan: &Plan, level: CompatLevel) -> Result<(), RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(level)
        .handle_access(AccessFs::from_all(NEEDED))?
        .handle_access(AccessNet::from_all(NEEDED))?
        // From Linux 6.12 on: no signals to processes outside.
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::Signal)
        .and_then(Ruleset::create)?
        .set_compatibility(level);
    let paths = [
        (&plan.read, read),
        (&plan.write, read | write()),
        (&plan.execute, read | AccessFs::Execute),
        (&plan.remove_empty, AccessFs::RemoveDir.into()),
    ];
    for (path, access) in paths.into_iter().flat_map(|(paths, access)| paths.iter().map(move |path| (path, access))) {
        // What is not there now is not needed: what is, was checked before.
        let Ok(fd) = PathFd::new(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(fd, fitting(path, access)))?;
    }
    let ports = [
        (&plan.bind_ports, AccessNet::BindTcp),
        (&plan.connect_ports, AccessNet::ConnectTcp),
        (&plan.connect_ports_at_start, AccessNet::ConnectTcp),
    ];
    for (port, access) in ports.into_iter().flat_map(|(ports, access)| ports.iter().map(move |port| (port, access))) {
        rules = rules.add_rule(NetPort::new(*port, access))?;
    }
    rules.restrict_self().map(drop)
}

/// Writing, and making and removing files and folders; no devices, sockets, pipes or links.
fn write() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::MakeDir
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// Some rights exist for folders only.
fn fitting(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() { access } else { access & AccessFs::from_file(NEEDED) }
}
