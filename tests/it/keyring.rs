//! Where the keyring comes from: a file that a passphrase seals.

use crate::support::fixture::{self, ALL};
use crate::support::service::Deployment;
use serde_json::json;

const PASSPHRASE: &str = "correct horse battery staple";

/// What a start says that is refused.
fn refusal(deployment: &Deployment, variables: &[(&str, &str)]) -> String {
    match deployment.try_serve_with(variables) {
        Ok(_) => panic!("it starts"),
        Err(said) => said,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_runs_on_a_sealed_keyring_and_on_no_other_passphrase() {
    let deployment = fixture::sqlite();
    let token = deployment.token("alice", &ALL);
    let secret = deployment.folder().join("passphrase");
    std::fs::write(&secret, format!("{PASSPHRASE}\n")).unwrap();
    let file = [("REKEY__KEYRING__PASSPHRASE__FILE", secret.to_str().unwrap())];
    let wrong = [("REKEY__KEYRING__PASSPHRASE", "another passphrase")];
    // Neither is an open file taken for a sealed one.
    let said = refusal(&deployment, &file);
    assert!(said.contains("seal it with `rekey keys seal`"), "{said}");
    let rekey = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = deployment.command(arguments);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let unset = rekey(&["keys", "seal"], &[]);
    let said = String::from_utf8(unset.stderr).unwrap();
    assert!(said.contains("keyring.passphrase must be set"), "{said}");
    assert!(rekey(&["keys", "seal"], &file).status.success());
    let sealed = std::fs::read_to_string(deployment.keyring()).unwrap();
    assert!(sealed.contains("argon2id") && !sealed.contains("\"key\""));
    let said = refusal(&deployment, &[]);
    assert!(said.contains("is sealed: set keyring.passphrase"), "{said}");
    let said = refusal(&deployment, &wrong);
    assert!(
        said.contains("keyring.passphrase does not open it"),
        "{said}"
    );
    assert!(!said.contains("another passphrase"), "{said}");
    // A hostile file asks for 4 TiB.
    let greedy = sealed.replace("\"memory_kib\": 65536", "\"memory_kib\": 4294967295");
    assert_ne!(greedy, sealed);
    std::fs::write(deployment.keyring(), greedy).unwrap();
    let said = refusal(&deployment, &file);
    assert!(said.contains("than is allowed"), "{said}");
    std::fs::write(deployment.keyring(), &sealed).unwrap();

    let mut replica = deployment.serve_with(&file);
    let client = replica.client(&token);
    client.create("A", "sk-1").await.unwrap().expect(201);
    let resolved = client.resolve(&json!({"names": ["A"]})).await.unwrap();
    assert_eq!(resolved.expect(200).json()["secrets"][0]["value"], "sk-1");
    assert_eq!(replica.terminate(), Some(0));
    assert!(!replica.stderr().contains(PASSPHRASE));
    assert!(rekey(&["keys", "list"], &file).status.success());
    // A new key goes into the sealed file, and the file stays sealed.
    assert!(rekey(&["keys", "generate"], &file).status.success());
    let longer = std::fs::read_to_string(deployment.keyring()).unwrap();
    assert!(longer.contains("argon2id") && longer.len() > sealed.len());
    assert!(rekey(&["keys", "unseal"], &file).status.success());
    let replica = deployment.serve();
    let client = replica.client(&token);
    let resolved = client.resolve(&json!({"names": ["A"]})).await.unwrap();
    assert_eq!(resolved.expect(200).json()["secrets"][0]["value"], "sk-1");
}
