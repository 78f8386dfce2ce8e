//! Models that predict the next token, through every command.

use crate::program::{BRIEFLY, Folder, bases, record};

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("genome.fa", record("one", &bases(1, 3000)) + &record("two", &bases(2, 900)));
    let rows = (0..40).map(|n| format!("{},{}\n", bases(n, 40), n % 2)).collect::<Vec<_>>().concat();
    folder.write("rows.csv", format!("sequence,label\n{rows}"));
    folder
}

const SPLIT: &str = "--set data.split.kind=contig --set data.split.test=[\"two\"]";

#[test]
fn causal_models_go_the_whole_way() {
    let folder = folder();
    folder.ok(&format!("learn genome.fa -o vocabulary --steps 2 {BRIEFLY}"));
    for (tokens, name, measure) in [
        ("character genome.fa", "characters", "bits_per_base"),
        ("blocks genome.fa --set tokenizer.k=3", "blocks", "bits_per_base"),
        ("vocabulary genome.fa", "codes", "code_bits_per_base"),
    ] {
        let line = format!("pretrain -o {name} --tokenizer {tokens} --set objective.kind=next {SPLIT} {BRIEFLY}");
        let outcome = folder.ok(&format!("{line} --steps 4 --markov 3"));
        let bits: f64 = outcome.value(measure).parse().expect("a number");
        assert!((1.0..20.0).contains(&bits), "{name}: {bits}");
        let rival: f64 = outcome.value("markov_0_bits_per_base").parse().expect("a number");
        assert!((1.9..2.1).contains(&rival), "{name}: {rival}");
        assert!(outcome.text().contains("back_off_3_bits_per_base"), "{name}");
        let shown = folder.ok(&format!("inspect {name}"));
        assert_eq!([shown.value(measure), shown.value("objective")], [outcome.value(measure), "next"], "{name}");
        let config: serde_json::Value =
            serde_json::from_slice(&folder.read(&format!("{name}/config.json"))).expect("JSON");
        assert_eq!(
            (&config["architectures"][0], &config["objective"]["kind"], &config["backbone"]["causal"]),
            (&"VqdnaForCausalLM".into(), &"next".into(), &true.into()),
        );
        folder.ok(&format!("finetune {name} rows.csv -o {name}-tuned --steps 2 --set train.batch=4"));
        folder.ok(&format!("predict {name}-tuned genome.fa -o {name}.tsv"));
        folder.ok(&format!("evaluate {name}-tuned rows.csv"));
        folder.ok(&format!("embed {name} rows.csv -o {name}-vectors.tsv"));
    }
}

/// What comes later changes no vector of a base.
#[test]
fn vectors_of_bases_know_of_earlier_ones_alone() {
    let folder = folder();
    folder
        .ok(&format!("pretrain --tokenizer character genome.fa -o run --steps 2 --set objective.kind=next {BRIEFLY}"));
    let vectors = |name: &str, sequence: String| -> Vec<String> {
        folder.write("one.fa", record("x", &sequence));
        folder.ok(&format!("embed run one.fa --pool none -o {name}.tsv"));
        let text = folder.text(&format!("{name}.tsv"));
        text.lines().filter(|line| !line.starts_with('#')).skip(1).map(str::to_owned).collect()
    };
    let (start, end, other) = (bases(5, 30), bases(6, 10), bases(7, 10));
    let (one, two) = (vectors("one", start.clone() + &end), vectors("two", start + &other));
    assert_eq!(one[..30], two[..30]);
    assert_ne!(one[30..], two[30..]);
}

#[test]
fn what_cannot_be_predicted_so_is_refused() {
    let folder = folder();
    for (line, parts) in [
        ("--tokenizer mxdna genome.fa --set objective.kind=next", &["backbone.kind", "before"][..]),
        (
            "--tokenizer character genome.fa --set objective.kind=next --set backbone.pool=2",
            &["backbone.pool=2", "before"],
        ),
        ("--tokenizer character genome.fa --set objective.kind=nxt", &["objective.kind", "`masked` or `next`"]),
        (
            "--tokenizer character genome.fa --set objective.kind=next --set objective.share=0.3",
            &["objective.share=0.3"],
        ),
        ("--tokenizer character genome.fa --markov 13", &["--markov", "0..=12"]),
    ] {
        let outcome = folder.run(&format!("pretrain -o new {line}"));
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        assert!(parts.iter().all(|part| outcome.stderr.contains(part)), "{line}: {}", outcome.stderr);
        assert!(!folder.path("new").exists(), "{line}");
    }
}

#[test]
fn generated_sequences_repeat_for_a_seed() {
    let folder = folder();
    folder.ok(&format!("pretrain --tokenizer blocks genome.fa -o run --steps 2 --set objective.kind=next {BRIEFLY}"));
    folder.ok("generate run --prompt ACGTTGCA --length 300 -n 3 --temperature 0.9 --top-p 0.9 --seed 5 -o three.fa");
    folder.ok("generate run --prompt ACGTTGCA --length 300 -n 1 --temperature 0.9 --top-p 0.9 --seed 5 -o one.fa.gz");
    let (three, one) = (folder.text("three.fa"), folder.ok("tokenize run one.fa.gz -o -").text().to_owned());
    let records: Vec<&str> = three.split('>').skip(1).collect();
    assert!(records.len() == 3 && records[0] != records[1], "{three}");
    for (record, number) in records.iter().zip(1..) {
        let (name, sequence) = record.split_once('\n').expect("a name");
        assert_eq!(name, format!("generated_{number} seed=5 prompt=8"));
        let sequence = sequence.replace('\n', "");
        assert!(sequence.len() == 308 && sequence.starts_with("ACGTTGCA"), "{sequence}");
    }
    folder.write("first.fa", format!(">{}", records[0]));
    assert_eq!(folder.ok("tokenize run first.fa -o -").text(), one, "the first of three");

    folder.ok(&format!("pretrain --tokenizer character genome.fa -o masked --steps 1 {BRIEFLY}"));
    for (line, parts) in [
        ("run --prompt ACGN", &["--prompt", "letter 4 is N"][..]),
        ("run --top-p 1", &["--top-p"]),
        ("run --temperature -1", &["--temperature"]),
        ("masked --prompt ACGT", &["masked", "objective.kind=next"]),
        ("run -o new.bam", &["new.bam", ".fa"]),
    ] {
        let outcome = folder.run(&format!("generate {line}"));
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        assert!(parts.iter().all(|part| outcome.stderr.contains(part)), "{line}: {}", outcome.stderr);
    }
}
