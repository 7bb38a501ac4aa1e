//! The contract of `tests/support/contract.rs` on the fake kernel, and that it leaves nothing out.

use std::net::IpAddr;

use ipvs::Command;
use weir::dataplane::VipBinding;
use weir::dataplane::fake::FakeKernel;
use weir::plan::{Bind, DeviceStep, Step};

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

#[path = "support/contract.rs"]
mod contract;

use contract::{Bench, COMBINATIONS, Outcome};

struct FakeBench(FakeKernel);

impl Bench for FakeBench {
    type Kernel = FakeKernel;

    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self(FakeKernel::default()))
    }

    fn kernel(&mut self) -> &mut FakeKernel {
        &mut self.0
    }

    fn into_kernel(self) -> FakeKernel {
        self.0
    }

    fn add_link(&mut self, name: &str, kind: &str) -> Outcome {
        self.0.add_link(name, kind);
        Ok(())
    }

    fn set_down(&mut self, name: &str) -> Outcome {
        self.0.set_device_down(name);
        Ok(())
    }

    fn add_plain_address(&mut self, name: &str, address: IpAddr) -> Outcome {
        let link = self.0.links.get_mut(name).ok_or("there is no such link")?;
        link.addresses.insert(address, VipBinding::Other);
        Ok(())
    }
}

contract::suite!(FakeBench);

/// The commands, in the order of their variants. A new variant breaks `index`, and then this must grow.
const COMMANDS: [&str; 6] = [
    "CreateVirtualServer",
    "UpdateVirtualServer",
    "DeleteVirtualServer",
    "CreateRealServer",
    "UpdateRealServer",
    "DeleteRealServer",
];

fn index_of_step(step: &Step) -> usize {
    match step {
        Step::CreateVirtualServer(_) => 0,
        Step::UpdateVirtualServer(_) => 1,
        Step::DeleteVirtualServer => 2,
        Step::CreateRealServer(..) => 3,
        Step::UpdateRealServer(..) => 4,
        Step::DeleteRealServer(_) => 5,
    }
}

fn index_of_command(command: &Command) -> usize {
    match command {
        Command::CreateVirtualServer(..) => 0,
        Command::UpdateVirtualServer(..) => 1,
        Command::DeleteVirtualServer(_) => 2,
        Command::CreateRealServer(..) => 3,
        Command::UpdateRealServer(..) => 4,
        Command::DeleteRealServer(..) => 5,
    }
}

fn index_of_device_step(step: DeviceStep) -> usize {
    match step {
        DeviceStep::Create => 0,
        DeviceStep::SetUp => 1,
        DeviceStep::Delete => 2,
    }
}

fn index_of_bind(bind: Bind) -> usize {
    match bind {
        Bind::Add => 0,
        Bind::Replace => 1,
    }
}

#[test]
fn every_variant_of_a_step_is_in_the_suite() {
    for combination in COMBINATIONS {
        let plans = contract::plans_of_every_step(combination);
        let mut steps: Vec<_> = plans
            .iter()
            .flat_map(|plan| plan.changes.iter().chain(&plan.retire))
            .flat_map(|change| change.steps.iter().map(index_of_step))
            .collect();
        steps.sort_unstable();
        assert_eq!(steps, [0, 1, 2, 3, 4, 5]);
        let mut device: Vec<_> = plans
            .iter()
            .flat_map(|plan| plan.device.iter().copied().map(index_of_device_step))
            .collect();
        device.sort_unstable();
        assert_eq!(device, [0, 1, 2]);
        let bind = plans.iter().flat_map(|plan| plan.bind.values().copied());
        assert_eq!(bind.map(index_of_bind).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(plans.iter().map(|plan| plan.unbind.len()).sum::<usize>(), 1);
    }
}

#[test]
fn every_command_is_in_the_suite() {
    for combination in COMBINATIONS {
        let mut bench = FakeBench::new().unwrap();
        contract::every_command_does_what_it_says(&mut bench, combination).unwrap();
        for name in COMMANDS {
            assert!(
                bench.0.log.iter().any(|line| line.starts_with(name)),
                "{name} is not tried"
            );
        }
    }
    // The names are those of the variants, each in its place.
    let key = ipvs::VirtualServerKey::Mark {
        mark: std::num::NonZeroU32::MIN,
        family: ipvs::Family::Ipv4,
    };
    let deletion = Command::DeleteVirtualServer(key);
    assert!(format!("{deletion:?}").starts_with(COMMANDS[index_of_command(&deletion)]));
}
