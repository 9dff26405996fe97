//! File descriptors: one limit for clients, peers and storage, of which clients get what the others do not need.
//!
//! In: the process's limit, the configuration. Out: a limit raised as far as it goes, and how many client connections
//! fit below it. Absent: other systems than Unix.

use crate::config::Config;
use crate::peers;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Tables, logs and manifest of storage, its reads of directories, and the runtime's own.
const STORAGE: u64 = 128;
/// Clients get at least one in so many, however few there are.
const CLIENTS_SHARE_MIN: u64 = 4;

/// Raises the process's limit of open files to what it may be; answers it.
pub(crate) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(now) = limit.current else { return u64::MAX };
    let mut raised = limit;
    raised.current = limit.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays");
            now
        }
    }
}

/// Bounds the client connections of a configuration so that, with `limit` open files, storage and peers find theirs.
pub(crate) fn leave_room(config: &mut Config, limit: u64) {
    let connections = clients(limit, config.cluster.members.len() as u64);
    if u64::from(config.limits.connections) <= connections {
        return;
    }
    tracing::warn!(
        open_files = limit,
        asked = config.limits.connections,
        connections,
        "the process may not open as many files as `limits.connections` asks for; storage and peers keep theirs, and \
         clients get the rest: raise `ulimit -n` (LimitNOFILE), or lower `limits.connections`"
    );
    config.limits.connections = u32::try_from(connections).unwrap_or(u32::MAX);
}

fn clients(limit: u64, members: u64) -> u64 {
    let reserve = STORAGE + 2 * members + peers::CONNECTIONS_SPARE as u64;
    limit.saturating_sub(reserve).max(limit / CLIENTS_SHARE_MIN).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_what_storage_and_peers_need() {
        for (limit, members, expected) in
            [(u64::MAX, 3, u64::MAX - 150), (65_536, 3, 65_386), (1_024, 3, 874), (64, 3, 16), (1, 1, 1)]
        {
            assert_eq!(clients(limit, members), expected, "{limit} for {members} members");
        }
        let mut config = Config::default();
        config.limits.connections = 1_024;
        leave_room(&mut config, 65_536);
        assert_eq!(config.limits.connections, 1_024);
        leave_room(&mut config, 64);
        assert_eq!(config.limits.connections, 16);
    }
}
