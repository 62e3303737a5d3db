//! The wire: `clade.v1` and its conversion to and from the core's types.
//!
//! Wire types stop at [`convert`]: nothing else turns them into core types.

pub mod convert;

/// Version of what workers and coordinators say to each other; counted up when an older side
/// would misunderstand a newer one.
pub const PROTOCOL: u32 = 2;

/// The generated messages and services of `clade.v1`.
pub mod v1 {
    #![expect(clippy::all, clippy::clone_on_ref_ptr, unused_qualifications, reason = "generated")]
    tonic::include_proto!("clade.v1");
}
