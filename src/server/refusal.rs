//! Checks whether the server would refuse a client's write at present.
//!
//! A primary that refuses writes must change nothing by itself either: a new primary may have been promoted in its place, and
//! may be granting the same leases. So the timer makes this check before it changes anything.
//!
//! Rejected: to let the server check, by running the timer's commands as a script's (`RM_Call` with `S`). 6.2 has no `S`. And
//! the server counts its good replicas once a second: a process that stood still for a while (SIGSTOP, a virtual machine that
//! was moved) continues with its old count. So this file reads the lag of each replica, which is always current.

use redis_module::raw;

use super::key_ref::Answer;
use super::section::Section;

type Ctx = *mut raw::RedisModuleCtx;

/// Whether this server, a primary, would refuse a client's write to any key. It does so if nothing may be replicated now (during
/// CLIENT PAUSE), if it has too few good replicas, or if its disk fails.
pub fn is_refusing(ctx: Ctx) -> bool {
    // During a pause, for example before a failover, nothing may go to the replicas: the server would end by an assertion.
    api!(RedisModule_AvoidReplicaTraffic()) != 0
        || !has_good_replicas(ctx)
        || is_stopped_by_disk(ctx)
}

fn has_good_replicas(ctx: Ctx) -> bool {
    let info = Section::of(ctx, c"replication");
    // The server shows this field only if both settings are in force.
    if info.field("min_slaves_good_slaves").is_none() {
        return true;
    }
    // If CONFIG was renamed, the settings are unknown: at least one replica, and the default lag.
    let wanted = setting(ctx, "min-replicas-to-write").unwrap_or(1);
    let most = setting(ctx, "min-replicas-max-lag").unwrap_or(10);
    let replicas = (0..).map_while(|n| info.field(&format!("slave{n}")));
    let good = replicas.filter(|replica| is_good(replica, most)).count();
    good as u64 >= wanted
}

/// Whether a replica is online and has answered within the last `most_seconds`. `replica` is a value of INFO, such as
/// `ip=…,port=…,state=online,offset=…,lag=1`.
fn is_good(replica: &str, most_seconds: u64) -> bool {
    let field = |name: &str| {
        let mut fields = replica.split(',').filter_map(|field| field.split_once('='));
        fields.find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    let lag = field("lag").and_then(|lag| lag.parse().ok());
    field("state") == Some("online") && lag.is_some_and(|lag: u64| lag <= most_seconds)
}

/// Whether the server refuses writes because of its disk. The rules are those of the server's own check.
fn is_stopped_by_disk(ctx: Ctx) -> bool {
    let info = Section::of(ctx, c"persistence");
    let is_error = |field: &str| info.field(field).is_some_and(|status| status != "ok");
    if is_error("aof_last_write_status") {
        return info.field("aof_enabled").as_deref() == Some("1");
    }
    is_error("rdb_last_bgsave_status")
        && word(ctx, "stop-writes-on-bgsave-error").as_deref() != Some("no")
        && word(ctx, "save").as_deref() != Some("")
}

fn setting(ctx: Ctx, name: &str) -> Option<u64> {
    word(ctx, name)?.parse().ok()
}

fn word(ctx: Ctx, name: &str) -> Option<String> {
    let answer = Answer::of(api!(RedisModule_Call(
        ctx,
        c"CONFIG".as_ptr(),
        c"cb".as_ptr(),
        c"GET".as_ptr(),
        name.as_ptr(),
        name.len()
    )));
    answer.element(1)
}

#[cfg(test)]
mod tests {
    use super::is_good;

    #[test]
    fn a_good_replica_is_online_and_has_answered_in_time() {
        let replica = |state, lag| {
            format!("ip=127.0.0.1,port=6380,state={state},offset=14,lag={lag},type=replica")
        };
        assert!(is_good(&replica("online", 2), 2));
        assert!(!is_good(&replica("online", 3), 2));
        assert!(!is_good(&replica("wait_bgsave", 0), 2));
        assert!(!is_good("", 2));
    }
}
