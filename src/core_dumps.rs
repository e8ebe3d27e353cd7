//! Disables core dumps, because the memory contains the client secret, tokens and customer names.

use std::io;

/// Prevents core dumps of this process, and access to its memory by the user's other programs.
///
/// A limit of zero prevents core files, and handlers such as systemd-coredump respect it. But if `kernel.core_pattern`
/// names a program, the kernel passes the memory to this program regardless of the limit. The process is therefore also
/// made undumpable. As a result, only root and the process itself can read its memory and its environment, which may
/// contain the secret. `/proc/PID` then belongs to root, but the files that provide the `process_*` metrics stay
/// readable.
///
/// # Errors
/// Returns an error if the system rejects a call, for example because of a system call filter. The other call is still
/// made.
#[cfg(target_os = "linux")]
pub fn disable() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    limit_to_zero()?;
    Ok(undumpable?)
}

/// Prevents core files. Further protection is implemented only for Linux.
///
/// # Errors
/// Returns an error if the system rejects the call.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn disable() -> io::Result<()> {
    limit_to_zero()
}

/// Sets the size limit of core files to zero. Setting the hard limit as well keeps this process from raising the soft
/// limit again.
#[cfg(unix)]
fn limit_to_zero() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let zero = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, zero)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::disable;

    /// Checks the settings, because a real core dump would depend on the machine's core handler.
    #[test]
    fn core_files_and_core_handlers_are_disabled() {
        disable().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // A second call succeeds, as it must if the service manager has already set the limit.
        disable().unwrap();
    }
}
