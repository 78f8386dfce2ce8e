//! A model that cuts sequences itself, through the same commands as any other.

use std::fs;
use std::io::Read as _;

use crate::errors::assert_refused;
use crate::program::{Folder, bases};

const BRIEFLY: &str =
    "--preset tiny --set train.batch=4 --set train.log_every=1 --set train.evaluate_every=4 --steps 6";

/// A genome with lower case, N and IUPAC letters, and a model `mxdna` that was pre-trained on it.
fn folder() -> Folder {
    let folder = Folder::new();
    let letters = bases(1, 3000);
    folder.write("genome.fa", format!(">a\n{}NNRYacgtn{}\n>empty\n>b\nA\n", &letters[..2000], &letters[2000..]));
    folder.ok(&format!("pretrain --tokenizer mxdna genome.fa -o mxdna --set data.length=64 {BRIEFLY}"));
    folder
}

/// The fields of the units of a BED file.
fn units(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn it_is_pretrained_tuned_moved_and_predicts_the_same() {
    let folder = folder();
    for n in 1..=3 {
        let row = |k: u64| format!("{},{}\r\n", bases(100 * n + k, 30), k % 2);
        let name = ["train", "dev", "test"][n as usize - 1];
        folder.write(
            &format!("data/{name}.csv"),
            "sequence,label\r\n".to_owned() + &(0..24).map(row).collect::<String>(),
        );
    }
    let tuned = folder.ok(&format!("finetune mxdna data -o tuned {BRIEFLY}"));
    assert!(tuned.text().contains("\nmcc\t"), "{}", tuned.text());
    folder.ok(&format!("finetune mxdna data -o fresh --from-scratch {BRIEFLY}"));
    let probe = folder.ok(&format!("finetune mxdna data -o probe --mode probe --kmers {BRIEFLY}"));
    assert!(probe.text().contains("\nmeasure on test\t"), "{}", probe.text());
    let predicted = folder.ok("predict tuned data/test.csv");
    assert_eq!(predicted.text().lines().count(), 25);
    fs::rename(folder.path("tuned"), folder.path("moved")).expect("moved");
    fs::remove_dir_all(folder.path("mxdna")).expect("removed");
    assert_eq!(folder.ok("predict moved data/test.csv").stdout, predicted.stdout);
    assert!(folder.ok("evaluate moved data").text().contains("\nconfusion\t"));
    assert_eq!(folder.ok("inspect moved").value("holds"), "a fine-tuned model");
}

#[test]
fn its_units_are_lines_of_bed_and_are_counted() {
    let folder = folder();
    let outcome = folder.ok("tokenize mxdna genome.fa -o spans.bed");
    assert!(outcome.stderr.contains("3010 bases, "), "{}", outcome.stderr);
    let text = folder.text("spans.bed");
    assert!(text.starts_with("#gffTags\n# vqdna "), "{text}");
    let (found, genome) = (units(&text), folder.text("genome.fa").lines().nth(1).expect("a record").to_owned());
    let mut end = 0;
    for fields in found.iter().filter(|fields| fields[0] == "a") {
        assert_eq!(fields.len(), 9, "{fields:?}");
        let [start, stop] = [1, 2].map(|n: usize| fields[n].parse::<usize>().expect("a place"));
        assert!(start >= end && stop > start && fields[6..8] == fields[1..3], "{fields:?}");
        assert!(fields[3].starts_with(&format!("Name={};size={};expert=", &genome[start..stop], stop - start)));
        end = stop;
    }
    assert_eq!(end, genome.len());
    assert_eq!(found.last().expect("units")[..3], ["b", "0", "1"]);
    assert_eq!(folder.ok("tokenize mxdna genome.fa -o - --threads 1").stdout, text.as_bytes());

    folder.ok("tokenize mxdna genome.fa -o spans.bed.gz");
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(&folder.read("spans.bed.gz")[..]).read_to_end(&mut unpacked).expect("gzip");
    assert!(unpacked == text.as_bytes());

    folder.write("places.bed", "# places\na\t0\t900\texon\na\t900\t1800\tintron\na\t1900\t2400\texon\n");
    let counted = folder.ok("units mxdna places.bed --fasta genome.fa --plot lengths.svg");
    assert!(counted.stderr.contains("passed over as comments: 1"), "{}", counted.stderr);
    let table = counted.text();
    let classes: Vec<&str> = table.lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(classes.len(), 20, "ten lengths of two classes: {table}");
    assert!(classes.starts_with(&["exon"]) && classes.ends_with(&["intron"]));
    assert!(table.contains("exon\t2\t1400\t"), "{table}");
    let svg = folder.text("lengths.svg");
    assert!(svg.starts_with("<svg") && svg.contains("exon") && svg.contains("intron"), "{svg}");

    folder.write("pairs.csv", "sequence_1,sequence_2\nACGTACGTACGT,ACGT\n");
    let pairs = folder.ok("units mxdna pairs.csv");
    assert!(pairs.stderr.contains("of each pair, the first sequence alone"), "{}", pairs.stderr);
    assert!(pairs.text().contains("pairs.csv\t1\t12\t"), "{}", pairs.text());
}

#[test]
fn vectors_stand_for_units_or_bases() {
    let folder = folder();
    folder.write("short.fa", ">s\nACGTTGCAACGT\n>t\nN\n");
    let last = folder.ok("embed mxdna short.fa -o - --pool none");
    let covered: usize = last
        .text()
        .lines()
        .filter(|line| line.starts_with("s\t"))
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            fields[2].parse::<usize>().expect("an end") - fields[1].parse::<usize>().expect("a start")
        })
        .sum();
    assert_eq!(covered, 12, "{}", last.text());
    let first = folder.ok("embed mxdna short.fa -o - --pool none --layer 1");
    assert_eq!(first.text().lines().filter(|line| line.starts_with("s\t")).count(), 12);
    let pooled = folder.ok("embed mxdna short.fa -o -");
    assert_eq!(pooled.text().lines().filter(|line| line.starts_with("s\t") || line.starts_with("t\t")).count(), 2);
}

#[test]
fn what_it_cannot_do_is_said_in_one_line() {
    let folder = folder();
    folder.write("short.csv", "sequence,label\nACGT,0\nACGG,1\nACGA,0\nACGC,1\n");
    let vocabulary = Folder::with_vocabulary();
    vocabulary.write("genome.fa", format!(">a\n{}\n", bases(1, 300)));
    for (folder, command, parts) in [
        (&folder, "tokenize mxdna genome.fa -o codes.parquet", &["codes.parquet", "no codes", ".bed"][..]),
        (&folder, "tokenize mxdna genome.fa -o s.bed --region a:1-9", &["--region", "none"]),
        (&folder, "tokenize mxdna genome.fa -o s.bed --chunk 9", &["--chunk", "none"]),
        (&folder, "finetune mxdna short.csv -o out --mode lora", &["adapters", "--mode full"]),
        (&folder, "pretrain mxdna genome.fa -o out", &["mxdna", "holds a pre-trained model", "a vocabulary is needed"]),
        (&folder, "pretrain genome.fa -o out", &["FASTA is missing"]),
        (&folder, "pretrain --tokenizer mxdna genome.fa -o out --set mxdna.heads=7", &["mxdna.heads"]),
        (&folder, "pretrain --tokenizer mxdna genome.fa -o out --set data.codes=cached", &["data.codes"]),
        (&folder, "embed mxdna genome.fa -o v.npy --layer 9", &["--layer 9"]),
        (&folder, "units mxdna genome.fa --plot lengths.png", &["lengths.png", ".svg"]),
        (&folder, "units mxdna genome.fa --names a,b", &["--names", "2", "1"]),
        (
            &folder,
            "import mxdna mxdna/model.safetensors -o out",
            &["model.safetensors", "`model.embed_tokens.weight` is missing"],
        ),
        (&folder, "import mxdna genome.fa -o out", &["genome.fa", "safetensors"]),
        (&folder, "import mxdna mxdna/model.safetensors -o mxdna", &["mxdna", "already holds files"]),
        (
            &vocabulary,
            "pretrain --tokenizer mxdna model genome.fa -o out",
            &["model is a folder", "without a vocabulary"],
        ),
        (&vocabulary, "tokenize model genome.fa -o spans.bed", &["spans.bed", "MxDNA"]),
        (&vocabulary, "tokenize model genome.fa -o c.npy --window 9", &["--window", "MxDNA"]),
        (&vocabulary, "units model genome.fa", &["model", "MxDNA", "--tokenizer mxdna"]),
    ] {
        assert_refused(folder, command, parts);
        assert!(!folder.path("out").exists(), "{command}");
    }
}

#[test]
fn bench_begins_with_the_weights_that_it_is_given() {
    let folder = folder();
    for work in ["mxdna-train", "mxdna-embed"] {
        for weights in ["", "--model mxdna"] {
            let outcome = folder
                .ok(&format!("bench {work} {weights} --preset tiny --runs 1 --batch 2 --length 40 --precision bf16"));
            let line: serde_json::Value = serde_json::from_str(outcome.text()).expect("one JSON object");
            assert_eq!((&line["work"], &line["bases"]), (&work.into(), &80.into()));
            let per_second = |field: &str| line[field].as_f64().expect("a number");
            // Two sequences of 1 to 40 units and two special tokens each.
            let tokens = 80.0 * per_second("tokens_per_s") / per_second("bases_per_s");
            assert!((6.0..=84.0).contains(&tokens), "{tokens}");
            assert!((0.0..1.0).contains(&per_second("selection_share")));
        }
    }
    assert_refused(&folder, "bench mxdna-train --model mxdna --preset small", &["mxdna", "`--preset small`"]);
    assert_refused(&folder, "bench mxdna-train --model genome.fa --preset tiny", &["genome.fa"]);
    assert_refused(&folder, "bench embed --model mxdna --preset tiny", &["--model"]);
}
