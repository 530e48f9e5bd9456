"""Secret-shared evaluation on servers: two parties and a dealer, who they are and how they talk."""
