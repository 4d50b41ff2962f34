"""python -m al_train_exo"""

from al_train_exo import main

main()
