"""The gRPC process of Headgate: takes events, seals them into ledgers, reads them back."""
