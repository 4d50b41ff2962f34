"""python -m al_train_ppo"""

from al_train_ppo import main

main()
