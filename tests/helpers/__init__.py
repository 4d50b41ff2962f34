"""What tests share: tiny models, the toy world, processes, faulty servers, kills."""
