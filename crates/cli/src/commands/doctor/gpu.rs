//! Graphics processors of this machine, as its drivers show them, and what a build of the program for them needs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// A graphics processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub maker: Maker,
    /// Its name, and what else is known.
    pub name: String,
}

/// Who made it, as far as it decides which build uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    Nvidia,
    Other,
}

/// Those of this machine; `nvidia-smi`, where it is, knows most of those of NVIDIA.
pub fn find() -> Vec<Gpu> {
    let mut found = nvidia_smi().unwrap_or_default();
    let has_nvidia = !found.is_empty();
    found.extend(below(Path::new("/")).into_iter().filter(|gpu| !(has_nvidia && gpu.maker == Maker::Nvidia)));
    if found.is_empty() && cfg!(target_os = "macos") {
        found.push(Gpu { maker: Maker::Other, name: "that of this Mac".to_owned() });
    }
    found
}

/// What to do so that it is used; none if this build can.
pub fn advice(maker: Maker, in_this_build: &[&str]) -> String {
    let build = |feature: &str, needs: &str| {
        format!(
            "not in this build; in a clone of the repository: cargo install --locked --path crates/cli --features {feature} ({needs})"
        )
    };
    match maker {
        Maker::Nvidia if in_this_build.contains(&"cuda") => "--device cuda".to_owned(),
        Maker::Nvidia => build("cuda", "needs the CUDA toolkit and a C++ compiler, and fetches LLVM while it builds"),
        Maker::Other if in_this_build.contains(&"wgpu") => "--device wgpu".to_owned(),
        Maker::Other => build("wgpu", "needs a driver for Vulkan or Metal"),
    }
}

/// What `nvidia-smi` lists; none if there is no such program, or it fails.
fn nvidia_smi() -> Option<Vec<Gpu>> {
    let query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"];
    let output = Command::new("nvidia-smi").args(query).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| listed(&String::from_utf8_lossy(&output.stdout)))
}

/// A line each: name, memory, version of the driver.
fn listed(text: &str) -> Vec<Gpu> {
    let name = |line: &str| match line.split(", ").collect::<Vec<_>>()[..] {
        [name, memory, driver] => format!("NVIDIA {}, {memory}, driver {driver}", name.trim_start_matches("NVIDIA ")),
        _ => format!("NVIDIA {line}"),
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| Gpu { maker: Maker::Nvidia, name: name(line) })
        .collect()
}

/// What the files of Linux say.
fn below(root: &Path) -> Vec<Gpu> {
    let mut found = Vec::new();
    for folder in entries(&root.join("proc/driver/nvidia/gpus")) {
        let text = fs::read_to_string(root.join("proc/driver/nvidia/gpus").join(folder).join("information"));
        let text = text.unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("Model:")).map_or("", str::trim);
        let name = format!("NVIDIA {}", model.trim_start_matches("NVIDIA "));
        found.push(Gpu { maker: Maker::Nvidia, name: name.trim().to_owned() });
    }
    if found.is_empty() {
        // In a container there may be the device alone.
        let is_device = |name: &String| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
        let devices = entries(&root.join("dev")).into_iter().filter(is_device);
        found.extend(devices.map(|name| Gpu { maker: Maker::Nvidia, name: format!("NVIDIA /dev/{name}") }));
    }
    let has_nvidia = !found.is_empty();
    for node in entries(&root.join("dev/dri")).into_iter().filter(|name| name.starts_with("renderD")) {
        let vendor =
            fs::read_to_string(root.join("sys/class/drm").join(&node).join("device/vendor")).unwrap_or_default();
        let (maker, vendor) = match vendor.trim() {
            "0x10de" if has_nvidia => continue,
            "0x10de" => (Maker::Nvidia, "NVIDIA"),
            "0x1002" => (Maker::Other, "AMD"),
            "0x8086" => (Maker::Other, "Intel"),
            _ => (Maker::Other, "unknown maker"),
        };
        found.push(Gpu { maker, name: format!("{vendor} /dev/dri/{node}") });
    }
    found
}

/// Names in a folder, sorted; none if it is not there.
fn entries(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn names(root: &Path) -> Vec<(Maker, String)> {
        below(root).into_iter().map(|gpu| (gpu.maker, gpu.name)).collect()
    }

    #[test]
    fn drivers_name_what_there_is() {
        let root = tempfile::tempdir().unwrap();
        assert!(names(root.path()).is_empty());
        write(root.path(), "dev/nvidia0", "");
        write(root.path(), "dev/nvidiactl", "");
        assert_eq!(names(root.path()), [(Maker::Nvidia, "NVIDIA /dev/nvidia0".to_owned())]);

        write(root.path(), "proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA H100\nIRQ: 1\n");
        write(root.path(), "dev/dri/renderD128", "");
        write(root.path(), "sys/class/drm/renderD128/device/vendor", "0x10de\n");
        write(root.path(), "dev/dri/renderD129", "");
        write(root.path(), "sys/class/drm/renderD129/device/vendor", "0x1002\n");
        write(root.path(), "dev/dri/card0", "");
        let expected =
            [(Maker::Nvidia, "NVIDIA H100".to_owned()), (Maker::Other, "AMD /dev/dri/renderD129".to_owned())];
        assert_eq!(names(root.path()), expected);
    }

    #[test]
    fn lines_of_nvidia_smi_are_read() {
        let found = listed("NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15\nTesla T4, 15360 MiB, 550.54.15\n\n");
        let names: Vec<&str> = found.iter().map(|gpu| gpu.name.as_str()).collect();
        assert_eq!(
            names,
            ["NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.54.15", "NVIDIA Tesla T4, 15360 MiB, driver 550.54.15"]
        );
    }

    #[test]
    fn advice_names_the_build_or_the_device() {
        assert!(advice(Maker::Nvidia, &["cpu"]).contains("--features cuda"));
        assert!(advice(Maker::Other, &["cpu"]).contains("--features wgpu"));
        assert_eq!(advice(Maker::Nvidia, &["cpu", "cuda"]), "--device cuda");
        assert_eq!(advice(Maker::Other, &["cpu", "wgpu"]), "--device wgpu");
    }
}
