//! The least role that each RPC takes: the one table of what may be asked by whom.
//!
//! What is not in it is refused. A test walks the protos and fails for an RPC without an entry.

use crate::Role;

/// The least role for an RPC by its full path; `None` refuses it to everybody.
pub fn least_role(path: &str) -> Option<Role> {
    let role = match path {
        "/clade.v1.RunService/GetStatus"
        | "/clade.v1.RunService/GetReport"
        | "/clade.v1.RunService/GetLogs"
        | "/clade.v1.RunService/ListJobs"
        | "/clade.v1.FleetService/ListWorkers" => Role::Viewer,

        "/clade.v1.RunService/ApplyRun" | "/clade.v1.RunService/CancelRun" => Role::Operator,

        "/clade.v1.FleetService/CordonNode"
        | "/clade.v1.FleetService/UncordonNode"
        | "/clade.v1.FleetService/DrainNode" => Role::Admin,

        "/clade.v1.WorkerService/Session" => Role::Worker,

        _ => return None,
    };
    Some(role)
}
