//! Opens the device that a user names. Nothing here relies on Burn's default device: with several backends compiled in it
//! may be one that this machine does not have.

use burn::prelude::*;

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// This build or machine does not have it.
    #[error("there is no device `{name}` in this build; it has: {}", available().join(", "))]
    Unknown {
        /// As requested.
        name: String,
    },
    /// The kernels of the CPU cannot run at the level that the environment asks for.
    #[cfg(feature = "cpu")]
    #[error(transparent)]
    Simd(#[from] vqdna_kernels::simd::SimdError),
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
/// If the name is unknown, its backend is not part of this build, or for the CPU `VQDNA_SIMD` asks for a level that there is not.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let (kind, index) = name.split_once(':').unwrap_or((name, "0"));
    let unknown = || DeviceError::Unknown { name: name.to_owned() };
    let index: usize = index.parse().map_err(|_| unknown())?;
    match kind {
        #[cfg(feature = "cpu")]
        "cpu" if index == 0 => {
            vqdna_kernels::simd::check_environment()?;
            Ok(Device::flex())
        }
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
