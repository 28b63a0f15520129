//! What every transport promises (ARCHITECTURE, promises), checked by the same cases on each: a test is
//! named `FABRIC::GROUP::PROMISE`. It knows engines by their public API alone, and nothing of a
//! transport but its name.
//!
//! Cases take a [`fabric::Fabric`], compare whole memories byte by byte with a naive copy, and
//! never assert on time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod fabric;
mod falling_back;
mod layouts;
mod log;
mod memory;
mod probe;

mod asynchronous;
mod auth;
mod bearers;
mod breaking;
mod cancelling;
mod connecting;
mod crowds;
mod deregistering;
mod directory;
mod forking;
mod granting;
mod lives;
mod notifying;
mod publishing;
mod rights;
mod sessions;
mod shutting_down;
mod strangers;
mod transfers;

/// A test for each case, on the fabric that the expression makes.
macro_rules! suite {
    ($fabric:expr; $($group:ident: $($case:ident)*;)*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                crate::$group::$case(&$fabric);
            })*
        })*
    };
}

/// Every case, on one fabric.
macro_rules! every_case {
    ($fabric:expr) => {
        suite! { $fabric;
            transfers:
                one_byte_and_nothing_beside_it_moves
                a_span_of_64_mib_moves_whole_over_one_lane_and_over_four
                a_million_scattered_spans_move_to_their_places
                spans_move_at_every_alignment
                spans_move_between_many_regions
                overlapping_sources_move_to_each_of_their_targets
                a_transfer_of_nothing_is_done_at_once
                both_directions_move_at_once
                many_threads_post_many_transfers_at_once
                a_prepared_transfer_moves_what_is_there_at_each_post
                selected_spans_move_as_their_indices_pair_them
                spans_that_do_not_fit_are_refused_before_anything_moves
                a_transfer_to_oneself_is_a_copy
                memory_of_the_caller_is_moved_like_the_engines_own;
            notifying:
                a_notification_finds_its_data_in_memory
                notifications_come_in_the_order_in_which_they_became_due
                empty_long_and_longest_notifications_arrive_whole
                a_notification_too_long_is_an_error_and_harms_nothing
                credit_runs_out_as_busy_and_returns_when_the_user_takes
                a_reads_notification_finds_its_data_with_the_reader
                a_failed_or_cancelled_read_notifies_nobody
                a_read_has_the_credit_of_its_notification_from_the_start
                a_refused_write_notifies_nobody;
            rights:
                a_region_without_the_right_to_write_is_not_written
                a_region_without_the_right_to_read_is_not_read
                a_region_for_grants_alone_serves_no_one_sided_transfer
                regions_that_are_listed_and_not_used_need_no_rights
                a_wrong_region_key_opens_nothing
                a_right_key_after_a_wrong_one_opens_the_region
                a_span_beyond_the_real_region_is_refused_by_its_owner
                a_forged_base_moves_no_access
                a_deregistered_region_is_refused_and_its_neighbour_served
                rights_forged_in_the_blob_give_none;
            cancelling:
                nothing_of_a_cancelled_write_lands_once_it_is_fenced
                nothing_of_a_cancelled_read_lands_once_it_has_ended
                a_small_read_does_not_wait_for_a_large_one
                a_transfer_cancelled_after_its_end_stays_done
                what_is_cancelled_does_not_disturb_what_is_not;
            deregistering:
                nothing_lands_in_a_region_deregistered_in_mid_write
                nothing_is_sent_from_a_source_deregistered_in_mid_write
                nothing_is_sent_from_a_region_deregistered_in_mid_read
                nothing_lands_in_a_sink_deregistered_in_mid_read
                buffers_and_regions_dropped_in_mid_transfer_harm_nobody;
            shutting_down:
                the_initiator_hears_of_a_target_that_shuts_down_in_mid_write
                the_target_of_an_initiator_that_shuts_down_serves_on
                the_initiator_hears_of_an_owner_that_shuts_down_in_mid_read
                own_operations_end_when_the_engine_shuts_down
                a_session_hears_of_the_other_engines_shutdown
                what_a_read_tells_leaves_before_the_goodbye
                calls_after_the_shutdown_say_so;
            crowds:
                ten_thousand_rooms_come_and_go_one_after_another
                a_thousand_rooms_are_open_at_once;
            sessions:
                a_receiver_that_comes_early_is_served
                a_sender_that_comes_early_is_served
                layers_arrive_in_any_order_and_in_groups
                block_sizes_orders_and_placements_may_differ
                tensor_parallel_windows_may_differ
                a_latent_cache_moves
                a_payload_arrives_empty_or_as_long_as_allowed
                a_payload_too_long_fails_both_sides
                a_finish_without_a_write_completes
                many_sessions_run_side_by_side
                an_abort_by_the_receiver_reaches_the_sender
                an_abort_by_the_sender_reaches_the_receiver
                a_dropped_receiver_aborts
                a_dropped_sender_aborts
                a_sender_without_a_receiver_ends_by_its_deadline
                a_receiver_without_a_sender_ends_by_its_deadline
                a_receiver_whose_sender_falls_silent_ends_by_its_deadline
                a_second_sender_of_a_session_is_refused
                a_second_receiver_of_a_session_is_refused
                a_second_receiver_that_ends_at_once_takes_nothing_from_the_first
                a_pool_of_another_engine_is_refused
                a_room_is_tried_again_under_the_next_attempt
                layouts_that_share_nothing_fail_both_sides
                a_write_before_the_grant_is_an_error;
            granting:
                nothing_lands_once_an_abort_has_returned
                nothing_lands_once_a_receivers_drop_has_returned
                nothing_lands_once_the_receivers_deadline_was_told
                nothing_lands_once_the_senders_abort_was_told
                a_region_of_a_pool_deregistered_in_mid_session_fails_it;
            breaking:
                transfers_go_on_over_the_next_connection
                sessions_go_on_over_the_next_connection
                a_peer_out_of_reach_fails_by_the_deadline_and_serves_when_back
                a_write_cancelled_while_the_road_breaks_is_fenced
                a_read_is_done_though_its_notification_finds_no_road;
            lives:
                a_restarted_engine_is_reached_again_under_its_old_address
                an_engine_that_crashed_and_came_back_is_another_peer
                notifications_for_the_old_life_do_not_reach_the_new
                the_blob_of_an_old_life_is_refused_while_the_new_is_connected
                a_removed_peer_can_be_added_again;
            connecting:
                two_engines_that_add_each_other_at_once_reach_each_other
                many_connects_to_one_address_are_one_peer
                an_engine_does_not_connect_to_itself
                nobody_listens_there_and_the_connect_ends_by_its_deadline
                a_name_that_does_not_resolve_is_an_error
                peers_are_found_by_address_in_their_regions;
            auth:
                engines_of_one_key_reach_each_other
                engines_of_different_keys_do_not
                a_keyless_engine_and_one_with_a_key_do_not
                engines_that_are_both_insecure_do
                off_loopback_a_key_is_required;
            bearers:
                who_holds_the_metadata_connects_and_nobody_else
                the_metadata_of_an_older_life_opens_nothing
                who_holds_the_auth_key_connects_too_where_one_is_named
                a_peer_that_was_not_added_back_is_served_both_ways
                engines_that_add_each_other_at_once_reach_each_other
                a_lost_connection_is_dialed_again_by_the_side_that_can
                a_restarted_engine_is_added_again
                a_restarted_engine_comes_back_by_itself
                who_begins_anew_has_what_was_its_own_if_it_can_be_told_from_others
                nobody_takes_the_name_of_a_connected_engine
                forged_metadata_changes_nothing_between_those_that_are_connected
                metadata_tells_its_engine_from_those_that_hold_only_this_ones
                off_loopback_no_key_is_required
                regions_are_added_to_a_known_peer;
            strangers:
                a_port_of_garbage_is_told_from_an_engine
                a_port_of_silence_ends_by_the_deadline
                garbage_at_the_port_disturbs_no_peer
                half_handshakes_disturb_no_peer
                silent_connections_keep_no_peer_out;
            asynchronous:
                operations_are_awaited_in_any_executor
                many_tasks_of_a_runtime_share_an_engine
                notifications_are_awaited
                waits_for_a_notification_end_with_the_engine
                what_came_before_the_end_may_be_taken_after_it
                progress_is_awaited
                a_dropped_future_detaches_its_transfer;
            publishing:
                a_published_region_is_used_by_who_only_knows_the_address
                what_is_not_published_or_not_any_more_is_not_told
                twenty_thousand_regions_are_told_and_used
                many_who_ask_at_once_are_all_answered
                an_engine_tells_itself_what_it_publishes
                a_question_that_nobody_answers_ends_by_the_deadline
                a_question_goes_on_over_the_next_connection;
            directory:
                a_registered_rank_is_found
                a_question_waits_for_its_rank
                a_rank_that_does_not_appear_is_told_so
                a_rank_goes_with_its_engine
                an_engine_finds_ranks_in_its_own_directory;
            forking:
                every_call_in_a_forked_child_says_so;
        }
    };
}

mod tcp {
    every_case!(crate::fabric::Tcp);
}

mod shm {
    every_case!(crate::fabric::Shm);
}
