"""What tests share: tiny models, commands, processes, faulty servers, kills."""
