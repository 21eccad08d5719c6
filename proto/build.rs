//! Compiles the contract with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 3] =
        ["holdfast/signer/v1/signer.proto", "holdfast/signer/v1/error.proto", "holdfast/node/v1/node.proto"];
    // These carry secrets: src/redact.rs says how each shows itself instead.
    const SECRET: [&str; 17] = [
        "holdfast.signer.v1.GetReplicaSecretsResponse",
        "holdfast.signer.v1.EcdhRequest",
        "holdfast.signer.v1.EcdhResponse",
        "holdfast.signer.v1.SignInvoiceRequest",
        "holdfast.signer.v1.SignCounterpartyCommitmentRequest",
        "holdfast.signer.v1.ValidateHolderCommitmentRequest",
        "holdfast.signer.v1.ReleaseCommitmentSecretResponse",
        "holdfast.signer.v1.ValidateCounterpartyRevocationRequest",
        "holdfast.signer.v1.SignHolderHtlcRequest",
        "holdfast.signer.v1.SignCounterpartyHtlcRequest",
        "holdfast.signer.v1.SignJusticeRequest",
        "holdfast.node.v1.CreateInvoiceResponse",
        "holdfast.node.v1.PayInvoiceRequest",
        "holdfast.node.v1.Payment",
        "holdfast.node.v1.SettleInvoiceRequest",
        "holdfast.node.v1.CreateRefundResponse",
        "holdfast.node.v1.ClaimRefundRequest",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().skip_debug(SECRET).compile_fds(descriptors)?;
    Ok(())
}
