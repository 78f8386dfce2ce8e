//! Opens the device that a user names. Nothing here relies on Burn's default device: with several backends compiled in it
//! may be one that this machine does not have.

use burn::prelude::*;

/// A device that this build or machine does not have.
#[derive(Debug, thiserror::Error)]
#[error("there is no device `{name}` in this build; it has: {}", available().join(", "))]
pub struct DeviceError {
    name: String,
}

/// Names that [`open`] knows in this build.
#[must_use]
pub fn available() -> Vec<&'static str> {
    let mut names = Vec::new();
    if cfg!(feature = "cpu") {
        names.push("cpu");
    }
    if cfg!(feature = "cuda") {
        names.push("cuda");
    }
    if cfg!(feature = "wgpu") {
        names.push("wgpu");
    }
    names
}

/// Opens a device by name: `cpu`, `cuda` (or `cuda:1`), `wgpu`.
///
/// # Errors
/// If the name is unknown or its backend is not part of this build.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let unknown = || DeviceError { name: name.to_owned() };
    let index: usize = index.parse().map_err(|_| unknown())?;
    match kind {
        #[cfg(feature = "cpu")]
        "cpu" if index == 0 => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Device::cuda(index)),
        #[cfg(feature = "wgpu")]
        "wgpu" if index == 0 => Ok(Device::wgpu(Default::default())),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_what_there_is() {
        assert!(super::open("cpu").is_ok());
        let message = super::open("gpu").unwrap_err().to_string();
        assert!(message.contains("`gpu`") && message.contains("cpu"), "{message}");
    }
}
