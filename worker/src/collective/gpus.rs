//! A gang of GPUs: what is in host memory goes around the ring over TCP, tensors on the GPUs by NCCL.
//!
//! The ring is there first. By it the ranks have proved who they are, agree whether all of them have NCCL, and
//! are told what a communicator needs; and a peer whose process ends is noticed on it at once, which NCCL may
//! never do.

use std::time::{Duration, Instant};

use clade_model::collective::{Collective, CollectiveError};
use clade_model::nccl::{Gpus, Id, Library, NcclError};
use clade_model::tch::{Device, Tensor};

use super::TcpRing;

/// For all ranks to bring up their GPUs' connections.
const JOIN_PATIENCE: Duration = Duration::from_secs(120);

/// A ring whose ranks also exchange by NCCL.
#[derive(Debug)]
pub struct OnGpus {
    ring: TcpRing,
    gpus: Gpus,
}

/// How a gang exchanges tensors that lie on GPUs.
#[derive(Debug)]
pub enum Exchange {
    ByNccl(Box<OnGpus>),
    /// Some rank lacks NCCL; `why` says so on that rank.
    ThroughHost {
        ring: TcpRing,
        why: Option<NcclError>,
    },
}

impl OnGpus {
    /// Brings up NCCL if every rank of the ring computes on a GPU and has it. All ranks must call it at once.
    ///
    /// # Errors
    ///
    /// What happens once they have agreed to: a gang in which some ranks exchange otherwise than others is none.
    pub fn bring_up(mut ring: TcpRing, device: Device) -> Result<Exchange, NcclError> {
        let library = if device.is_cuda() {
            Library::find()
        } else {
            Err(NcclError::Failed("this rank computes on the CPU".to_owned()))
        };
        let own = [f32::from(u8::from(library.is_ok()))];
        let mut all = Vec::new();
        ring.all_gather(&own, &mut all)?;
        let library = match library {
            Ok(library) if all.iter().all(|has_it| *has_it > 0.0) => library,
            Ok(_) => return Ok(Exchange::ThroughHost { ring, why: None }),
            Err(why) => return Ok(Exchange::ThroughHost { ring, why: Some(why) }),
        };
        let mut values = match ring.rank() {
            0 => library.draw_id()?.to_values(),
            _ => Id::blank_values(),
        };
        ring.broadcast(0, &mut values)?;
        let id = Id::from_values(&values)
            .ok_or_else(|| NcclError::Failed("rank 0 told what is no id".to_owned()))?;
        let place = (ring.rank(), ring.world_size());
        let give_up = || ring.hung_up();
        let gpus = Gpus::join(library, &id, place, device, JOIN_PATIENCE, &give_up)?;
        Ok(Exchange::ByNccl(Box::new(Self { ring, gpus })))
    }
}

/// Gives up when a neighbour has hung up, or has stood still for as long as the ring lets it.
fn patience(ring: &TcpRing) -> impl Fn() -> Option<CollectiveError> + '_ {
    let begun = Instant::now();
    move || {
        ring.hung_up().or_else(|| {
            let (peer, waited) = (ring.rank(), begun.elapsed());
            (waited > ring.patience()).then_some(CollectiveError::Timeout { peer, waited })
        })
    }
}

impl Collective for OnGpus {
    fn rank(&self) -> usize {
        self.ring.rank()
    }

    fn world_size(&self) -> usize {
        self.ring.world_size()
    }

    fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.ring.all_reduce_sum(values)
    }

    fn all_gather(&mut self, own: &[f32], out: &mut Vec<f32>) -> Result<(), CollectiveError> {
        self.ring.all_gather(own, out)
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.ring.broadcast(root, values)
    }

    fn barrier(&mut self) -> Result<(), CollectiveError> {
        self.ring.barrier()
    }

    fn is_on_device(&self) -> bool {
        true
    }

    fn take_waited(&mut self) -> Duration {
        self.ring.take_waited()
    }

    fn add_waited(&mut self, waited: Duration) {
        self.ring.add_waited(waited);
    }

    fn begin_sum(&mut self, tensor: &Tensor) -> Result<(), CollectiveError> {
        self.gpus.begin_sum(tensor, &patience(&self.ring))
    }

    fn end_sums(&mut self) -> Result<(), CollectiveError> {
        let summed = self.gpus.end(&patience(&self.ring));
        self.ring.add_waited(self.gpus.take_waited());
        summed
    }

    fn gather_tensors(&mut self, own: &Tensor) -> Result<Tensor, CollectiveError> {
        let gathered = self.gpus.gather(own, &patience(&self.ring));
        self.ring.add_waited(self.gpus.take_waited());
        gathered
    }
}
